#!/usr/bin/env bash
# curl: an assistant, a thread, a streamed run, and the messages afterwards.
#
# Offline, from the root of the repository; any question is answered by the rehearsal model:
#
#     make run
#     bash examples/assistant.sh "What is 3 + 4?"    # in another terminal
#
# With a real model start the server as docs/getting-started.md says.
set -euo pipefail

base_url=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
question=${1:-What is 3 + 4?}

api() { # METHOD PATH [JSON]
    curl --fail-with-body --silent --show-error --no-buffer -X "$1" "$base_url$2" ${3+--data "$3"} \
        -H "Authorization: Bearer ${OPENAI_API_KEY:-any}" -H "OpenAI-Beta: assistants=v2" -H "Content-Type: application/json"
}
id() { sed 's/^{"id":"\([^"]*\)".*/\1/'; }
quoted() { printf '"%s"' "$(sed 's/[\"]/\\&/g' <<<"$1")"; }

assistant=$(api POST /assistants '{"model": "gpt-4o", "instructions": "You are a friendly tutor."}' | id)
thread=$(api POST /threads "{\"messages\": [{\"role\": \"user\", \"content\": $(quoted "$question")}]}" | id)

api POST "/threads/$thread/runs" "{\"assistant_id\": \"$assistant\", \"stream\": true}"
api GET "/threads/$thread/messages?order=asc"
