// Drives what a server hands on to its models with openai-node, whatever its version from 4.104 on.
//
// A program of its own, under the rules of smoke.mjs.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import OpenAI, { BadRequestError, NotFoundError, RateLimitError } from 'openai';
import { VERSION } from 'openai/version';

const ANSWER = 'Grüezi, \u{1F469}\u200D\u{1F4BB}! 3 + 4 = 7';
const ARGUMENTS = ['{"a": 3, "b": 4}', '{"a": 10, "b": [1, 2]}'];
const CALLS = ARGUMENTS.map((given) => `[[call: add ${given} ]]`).join('');
const TOOLS = [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }];

const client = new OpenAI({ maxRetries: 0 }); // a request that is sent twice would hide a fault
const { completions } = client.chat;
const asking = (content, rest = {}) => ({ model: 'gpt-4o', messages: [{ role: 'user', content }], ...rest });
const called = (calls) => calls.map(({ id, function: { name, arguments: given } }) => [id, name, given]);

async function all(listed) {
  const found = [];
  for await (const one of listed) found.push(one);
  return found;
}

async function refusal(kind, request) {
  const error = await Promise.resolve(request).then(() => assert.fail(`no ${kind.name}`), (reason) => reason);
  assert.ok(error instanceof kind, error);
  return error;
}

// The function calls of a stream, put together as an application does it.
function accumulated(chunks) {
  const made = [];
  for (const { choices } of chunks)
    for (const { index, id, function: said } of choices[0]?.delta.tool_calls ?? []) {
      made[index] ??= ['', '', ''];
      [id, said.name, said.arguments].forEach((piece, place) => (made[index][place] += piece ?? ''));
    }
  return made;
}

async function whole_completion() {
  const { object, choices, usage } = await completions.create(asking(`[[say: ${ANSWER}]]`));
  const [{ message, finish_reason }] = choices;
  assert.deepEqual([object, message.role, message.content], ['chat.completion', 'assistant', ANSWER]);
  assert.deepEqual([finish_reason, message.tool_calls], ['stop', undefined]);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  assert.ok(usage.total_tokens > 0);
}

async function streamed_completion() {
  const rest = { stream: true, stream_options: { include_usage: true } };
  const chunks = await all(await completions.create(asking(`[[say: ${ANSWER}]]`, rest)));
  const last = chunks.pop();
  assert.equal(chunks.map(({ choices }) => choices[0].delta.content ?? '').join(''), ANSWER);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  const { usage } = await completions.create(asking(`[[say: ${ANSWER}]]`));
  assert.deepEqual([last.choices, last.usage], [[], usage]);
}

async function function_calls() {
  const body = asking(`[[say: ${ANSWER}]]${CALLS}`, { tools: TOOLS });
  const [{ message, finish_reason }] = (await completions.create(body)).choices;
  const made = called(message.tool_calls);
  assert.equal(finish_reason, 'tool_calls');
  assert.deepEqual(made.map(([, ...rest]) => rest), ARGUMENTS.map((given) => ['add', given]));
  assert.deepEqual(accumulated(await all(await completions.create({ ...body, stream: true }))), made);
  const results = made.map(([tool_call_id]) => ({ role: 'tool', tool_call_id, content: '7' }));
  const messages = [...body.messages, message, ...results];
  const [then] = (await completions.create({ ...body, messages })).choices;
  assert.deepEqual([then.finish_reason, then.message.content, then.message.tool_calls], ['stop', ANSWER, undefined]);
}

async function stream_helper() {
  const api = completions.stream ? completions : client.beta.chat.completions;
  const body = asking(`[[say: ${ANSWER}]]${CALLS}`, { tools: TOOLS });
  const ended = [];
  const stream = api.stream(body).on('tool_calls.function.arguments.done', (call) => ended.push(call.arguments));
  const [{ message, finish_reason }] = (await stream.finalChatCompletion()).choices;
  const [whole] = (await completions.create(body)).choices;
  assert.deepEqual([finish_reason, message.content, ended], ['tool_calls', ANSWER, ARGUMENTS]);
  assert.deepEqual(called(message.tool_calls), called(whole.message.tool_calls));
}

async function embeddings() {
  const body = { model: 'text-embedding-3-small', input: ['How is the weather?', ANSWER] };
  const vectorsOf = ({ data }) => data.map(({ embedding }) => Array.from(embedding));
  const byDefault = await client.embeddings.create(body); // asks for base64
  const vectors = vectorsOf(byDefault);
  assert.deepEqual([byDefault.object, byDefault.data.map(({ index }) => index)], ['list', [0, 1]]);
  assert.ok(byDefault.usage.total_tokens > 0);
  for (const vector of vectors) assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-6);
  assert.deepEqual(vectorsOf(await client.embeddings.create({ ...body, encoding_format: 'float' })), vectors);
  const packed = await client.embeddings.create({ ...body, encoding_format: 'base64' });
  const raw = packed.data.map(({ embedding }) => Uint8Array.from(Buffer.from(embedding, 'base64')).buffer);
  assert.deepEqual(raw.map((bytes) => Array.from(new Float32Array(bytes))), vectors);
  const short = await client.embeddings.create({ ...body, input: ANSWER, dimensions: 64 });
  assert.equal(short.data[0].embedding.length, 64);
}

async function models() {
  for (const listed of await all(client.models.list()))
    assert.deepEqual(await client.models.retrieve(listed.id), listed);
  const error = await refusal(NotFoundError, client.models.retrieve('nobody/offers-this'));
  assert.equal(error.code, 'model_not_found');
}

async function refusals_of_the_endpoint() {
  const prompt = { model: 'gpt-3.5-turbo-instruct', prompt: 'Say it' };
  let error = await refusal(NotFoundError, client.completions.create(prompt));
  assert.deepEqual(Object.keys(error.error).sort(), ['code', 'message', 'param', 'type']);
  assert.match(error.error.message, /\/v1\/completions/);
  for (const stream of [false, true]) {
    const body = asking('[[error: 400 code=unsupported_value]]', { stream });
    error = await refusal(BadRequestError, completions.create(body));
    assert.deepEqual([error.status, error.code, error.type], [400, 'unsupported_value', 'invalid_request_error']);
  }
  error = await refusal(BadRequestError, client.embeddings.create({ model: 'text-embedding-3-small', input: '' }));
  assert.equal(error.param, 'input');
}

async function a_busy_endpoint() {
  // for each text, so each has to be new
  const once = () => asking(`[[say: Here I am.]][[error: 429 retry_after=0.01 times=1]]${randomUUID()}`);
  const error = await refusal(RateLimitError, completions.create(once()));
  const retryAfter = error.headers.get?.('retry-after') ?? error.headers['retry-after'];
  assert.deepEqual([error.status, retryAfter], [429, '0.01']);
  const [{ message }] = (await completions.create(once(), { maxRetries: 1 })).choices;
  assert.equal(message.content, 'Here I am.');
}

const SCENARIOS = [
  whole_completion,
  streamed_completion,
  function_calls,
  stream_helper,
  embeddings,
  models,
  refusals_of_the_endpoint,
  a_busy_endpoint,
];

for (const scenario of SCENARIOS) await scenario();
console.log(JSON.stringify({ sdk: VERSION, passed: SCENARIOS.map(({ name }) => name) }));
