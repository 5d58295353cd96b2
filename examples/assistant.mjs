// Node.js: a streamed answer, and a function of this program that the model calls.
//
// Offline, from the root of the repository, with a model that plays `rehearsal.yaml`:
//
//     ADLATUS_REHEARSAL_SCRIPT=examples/rehearsal.yaml make run
//
//     export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs Node.js 22
//     npm install --prefix examples openai
//     node examples/assistant.mjs
//
// With a real model start the server as docs/getting-started.md says, and ask what you like:
//
//     node examples/assistant.mjs "How warm is it in Oslo?"

import OpenAI from 'openai';

const question = process.argv[2] ?? 'What should I wear in Paris today?';
const weather = { Oslo: 'snow, -3 °C', Paris: 'sunny, 22 °C' };
const functions = { get_weather: ({ city }) => weather[city] ?? 'unknown' };
const get_weather = {
  name: 'get_weather',
  description: 'The weather of a city, now.',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

const { assistants, threads } = new OpenAI().beta;
const assistant = await assistants.create({ model: 'gpt-4o', tools: [{ type: 'function', function: get_weather }] });
const thread = await threads.create({ messages: [{ role: 'user', content: question }] });

let run = await told(threads.runs.stream(thread.id, { assistant_id: assistant.id }));
while (run.status === 'requires_action') {
  const calls = run.required_action.submit_tool_outputs.tool_calls;
  const tool_outputs = calls.map(({ id, function: call }) => {
    console.log(`[${call.name} ${call.arguments}]`);
    return { tool_call_id: id, output: functions[call.name](JSON.parse(call.arguments)) };
  });
  run = await told(threads.runs.submitToolOutputsStream(run.id, { thread_id: thread.id, tool_outputs }));
}
console.log(run.last_error?.message ?? '');

function told(stream) {
  return stream.on('textDelta', ({ value }) => process.stdout.write(value)).finalRun();
}
