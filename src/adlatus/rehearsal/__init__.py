"""The rehearsal model: an OpenAI-compatible chat-completions server that plays scripts instead of thinking.

It answers when no model is configured, and it is the model of our own tests. It knows nothing of Adlatus's runs.
`markers` turns a request into a plan, or `script` and `matching` do if a script is given (docs/rehearsal.md); `server`
plays plans over HTTP, where `voice` writes them. `embeddings` hashes words. Only `server` and `playing` know HTTP.

What follows holds without a script. If no marker says what to answer, the answer tells that it is a scripted stand-in.
Markers in the last user message steer it; the rest of that message is then ignored, and so are markers anywhere else. A
marker is `[[name]]` or `[[name: value]]`; it ends with the last two of the brackets that close it, so `[[say: [1]]]`
says `[1]`. A marker that is misspelt, unclosed or has a bad value is answered with 400 and this list. N counts chunks
of text and of function calls (0 if left out):

What is said (several are joined; all are cut at the request's max_completion_tokens or max_tokens):
- `[[say: TEXT]]`: exactly this text; line breaks count; one space after the colon does not.
- `[[echo: request|messages|system]]`: what the model received, as compact JSON with sorted keys; `system` is the plain
  text of the system and developer messages, one per line.
- `[[tokens: COUNT]]`: `word1 word2 …`, at most 100000.
- `[[call: NAME ARGUMENTS]]`: a call of this function after the text. ARGUMENTS go out as they are, `{}` if left out; a
  space has to part brackets that close one another. Passed over once a tool has answered after that user message.

How fast:
- `[[delay: SECONDS]]`: nothing at all is sent before, not even the head of an error.
- `[[pace: SECONDS]]`: between two tokens.

What fails before the answer (several happen one after the other, request by request, if all but the last have `times`):
- `[[error: STATUS]]` and optionally `retry_after=SECONDS`, `code=CODE`, `times=COUNT`: an HTTP error. With `times` it
  happens only to the first requests with these messages, counted for each server.
- `[[error: disconnect]]` and optionally `times=COUNT`: the connection is closed without a byte of answer.

What fails in the answer, after N chunks (a whole answer fails in the corresponding way):
- `[[cut: N]]`: the connection is broken off. Whole: in the middle of the JSON.
- `[[stall: N]]`: silence on an open connection until the client goes. Whole: without a byte.
- `[[garble: N]]`: one event that is not JSON, then on as if nothing happened. Whole: a body that is not JSON.
- `[[stream_error: N MESSAGE]]`: an error event, then the end without `[DONE]`. Whole: HTTP status 500.

How it ends:
- `[[finish: stop|length|content_filter]]`: the finish_reason, which else is `stop`, `tool_calls` or `length`.
- `[[usage: PROMPT COMPLETION]]`: the tokens reported, instead of counted words. `[[usage: none]]`: no usage at all.
"""
