// Drives every operation of a server with openai-node, whatever its version from 4.104 on.
//
// A program of its own, which imports nothing but the SDK: OPENAI_BASE_URL and OPENAI_API_KEY say where the server is,
// whose model is the rehearsal model. The last line that it prints is JSON, the SDK's version and the names of the
// scenarios that passed; a scenario that fails ends it with a traceback.

import assert from 'node:assert/strict';
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError, toFile } from 'openai';
import { VERSION } from 'openai/version';

const REQUEST_ID = /^req_[0-9a-f]{32}$/;
const ANSWER = 'Grüezi, \u{1F469}\u200D\u{1F4BB}! 3 + 4 = 7';
const SLOWLY = '[[pace: 0.05]][[tokens: 5000]]'; // long enough to be there whatever is done to it
const EVENTS_BEFORE_TEXT = [
  'thread.run.created',
  'thread.run.queued',
  'thread.run.in_progress',
  'thread.run.step.created',
  'thread.run.step.in_progress',
  'thread.message.created',
  'thread.message.in_progress',
];
const EVENTS_AFTER_TEXT = ['thread.message.completed', 'thread.run.step.completed', 'thread.run.completed'];

const client = new OpenAI({ maxRetries: 0 }); // a request that is sent twice would hide a fault
const { assistants: assistantsApi, threads: threadsApi } = client.beta;
const { messages: messagesApi, runs: runsApi } = threadsApi;

// Up to version 4 the ids of a path were arguments in its order, and `delete` was called `del`.
const until4 = Number(VERSION.split('.')[0]) <= 4;
const below = (thread_id, id, ...rest) => (until4 ? [thread_id, id, ...rest] : [id, { thread_id, ...rest[0] }]);
const remove = (api, ...ids) => (until4 ? api.del(...ids) : api.delete(...ids));
const stepsOf = ({ thread_id, id }) =>
  until4 ? runsApi.steps.list(thread_id, id) : runsApi.steps.list(id, { thread_id });
const stepOf = ({ thread_id, id }, step) =>
  until4 ? runsApi.steps.retrieve(thread_id, id, step) : runsApi.steps.retrieve(step, { thread_id, run_id: id });

const newAssistant = async () => (await assistantsApi.create({ model: 'gpt-4o', instructions: 'Answer.' })).id;
const newThread = async (content = `[[say: ${ANSWER}]]`) =>
  (await threadsApi.create({ messages: [{ role: 'user', content }] })).id;
const texts = (messages) => messages.flatMap(({ content }) => content.map((part) => part.text.value));
const words = (count) => Array.from({ length: count }, (_, index) => `word${index + 1}`).join(' ');

async function all(listed) {
  const found = [];
  for await (const one of listed) found.push(one);
  return found;
}

// What a stream has made of a run and its messages is what the server has kept. Version 4 leaves messages as the deltas
// have made them, even where their end was told.
async function assertRetrievable(run, messages = []) {
  assert.deepEqual(await runsApi.retrieve(...below(run.thread_id, run.id)), run);
  for (const message of messages) {
    const kept = await messagesApi.retrieve(...below(run.thread_id, message.id));
    if (until4) assert.deepEqual(texts([kept]), texts([message]));
    else assert.deepEqual(kept, message);
  }
}

async function refusal(kind, request) {
  const error = await Promise.resolve(request).then(() => assert.fail(`no ${kind.name}`), (reason) => reason);
  assert.ok(error instanceof kind, error);
  return error;
}

async function models() {
  const offered = await all(client.models.list());
  assert.ok(offered.length);
  assert.equal((await client.models.retrieve(offered[0].id)).id, offered[0].id);
}

async function assistants() {
  const tools = [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }];
  const whole = { name: 'Tutor', instructions: 'Teach.', tools, metadata: { a: '1' }, temperature: 0.5 };
  const made = await assistantsApi.create({ model: 'gpt-4o', ...whole });
  assert.deepEqual([made.object, made.name, made.temperature, made.metadata], ['assistant', 'Tutor', 0.5, { a: '1' }]);
  assert.equal(made.tools[0].function.name, 'add');
  assert.deepEqual(await assistantsApi.retrieve(made.id), made);
  assert.deepEqual(await assistantsApi.update(made.id, { name: 'Coach' }), { ...made, name: 'Coach' });
  const deleted = await remove(assistantsApi, made.id);
  assert.deepEqual([deleted.id, deleted.deleted, deleted.object], [made.id, true, 'assistant.deleted']);
  await refusal(NotFoundError, assistantsApi.retrieve(made.id));
}

async function pages_of_assistants() {
  const made = [];
  for (let number = 0; number < 5; number++) made.push(await newAssistant());
  const found = (await all(assistantsApi.list({ order: 'asc', limit: 2 }))).map(({ id }) => id);
  assert.deepEqual(found.filter((id) => made.includes(id)), made);
  const newest = await assistantsApi.list({ limit: 2 });
  assert.deepEqual(newest.data.map(({ id }) => id), [made[4], made[3]]);
  assert.ok(newest.hasNextPage());
  assert.deepEqual((await newest.getNextPage()).data.map(({ id }) => id), [made[2], made[1]]);
}

async function threads() {
  const made = await threadsApi.create({ metadata: { a: '1' } });
  assert.deepEqual([made.object, made.metadata], ['thread', { a: '1' }]);
  assert.deepEqual((await threadsApi.retrieve(made.id)).metadata, { a: '1' });
  assert.deepEqual((await threadsApi.update(made.id, { metadata: { b: '2' } })).metadata, { b: '2' });
  assert.ok((await remove(threadsApi, made.id)).deleted);
  await refusal(NotFoundError, threadsApi.retrieve(made.id));
}

async function messages() {
  const { id: threadId } = await threadsApi.create();
  const made = [];
  for (let number = 0; number < 5; number++)
    made.push(await messagesApi.create(threadId, { role: 'user', content: `Question ${number}` }));
  assert.deepEqual([made[0].object, made[0].role], ['thread.message', 'user']);
  assert.deepEqual(await messagesApi.retrieve(...below(threadId, made[0].id)), made[0]);
  const changed = await messagesApi.update(...below(threadId, made[0].id, { metadata: { b: '2' } }));
  assert.deepEqual(changed.metadata, { b: '2' });
  const listed = await all(messagesApi.list(threadId, { order: 'asc', limit: 2 }));
  assert.deepEqual(texts(listed), [0, 1, 2, 3, 4].map((number) => `Question ${number}`));
  const deleted = await remove(messagesApi, ...below(threadId, made[0].id));
  assert.deepEqual([deleted.id, deleted.deleted, deleted.object], [made[0].id, true, 'thread.message.deleted']);
  const rest = await messagesApi.list(threadId, { before: made[1].id });
  assert.deepEqual(rest.data.map(({ id }) => id), [made[4].id, made[3].id, made[2].id]);
}

async function polled_run() {
  const run = await runsApi.createAndPoll(await newThread(), { assistant_id: await newAssistant() });
  assert.deepEqual([run.object, run.status, run.instructions], ['thread.run', 'completed', 'Answer.']);
  assert.equal(run.usage.total_tokens, run.usage.prompt_tokens + run.usage.completion_tokens);
  assert.ok(run.usage.total_tokens > 0);
  assert.deepEqual(texts((await messagesApi.list(run.thread_id, { run_id: run.id })).data), [ANSWER]);
  await assertRetrievable(run);
}

async function runs() {
  const [threadId, assistant_id, made] = [await newThread(), await newAssistant(), []];
  for (let number = 0; number < 3; number++) {
    const run = await runsApi.create(threadId, { assistant_id, additional_instructions: `Turn ${number}.` });
    assert.equal(run.instructions, `Answer.\nTurn ${number}.`);
    made.push(await runsApi.poll(...below(threadId, run.id)));
  }
  assert.deepEqual(made.map(({ status }) => status), ['completed', 'completed', 'completed']);
  const listed = await all(runsApi.list(threadId, { order: 'asc', limit: 2 }));
  assert.deepEqual(listed.map(({ id }) => id), made.map(({ id }) => id));
  const changed = await runsApi.update(...below(threadId, made[0].id, { metadata: { b: '2' } }));
  assert.deepEqual(changed, { ...made[0], metadata: { b: '2' } });
}

async function cancelled_run() {
  const threadId = await newThread(SLOWLY);
  const run = await runsApi.create(threadId, { assistant_id: await newAssistant() });
  const error = await refusal(BadRequestError, messagesApi.create(threadId, { role: 'user', content: 'More' }));
  assert.equal(error.error.message, `Can't add messages to ${threadId} while a run ${run.id} is active.`);
  assert.equal((await runsApi.cancel(...below(threadId, run.id))).status, 'cancelling');
  assert.equal((await runsApi.poll(...below(threadId, run.id))).status, 'cancelled');
}

async function failed_run() {
  const run = await runsApi.createAndPoll(await newThread('[[error: 400]]'), { assistant_id: await newAssistant() });
  assert.equal(run.status, 'failed');
  assert.ok(run.last_error.message);
}

async function incomplete_run() {
  const threadId = await newThread('[[say: Cut off]][[finish: length]]');
  const stream = runsApi.stream(threadId, { assistant_id: await newAssistant() });
  if (until4) {
    // Version 4 takes no notice of a run that ends incomplete
    await assert.rejects(stream.finalRun(), /Final run has not been received/);
    const [run] = (await runsApi.list(threadId)).data;
    assert.equal(run.status, 'incomplete');
    return;
  }
  const [run, said] = [await stream.finalRun(), await stream.finalMessages()];
  assert.equal(run.status, 'incomplete');
  assert.ok(run.incomplete_details.reason);
  assert.deepEqual([texts(said), said[0].status], [['Cut off'], 'incomplete']);
  await assertRetrievable(run, said);
}

async function steps() {
  const run = await runsApi.createAndPoll(await newThread(), { assistant_id: await newAssistant() });
  const [step, ...others] = await all(stepsOf(run));
  assert.deepEqual(others, []);
  assert.deepEqual([step.object, step.type, step.status], ['thread.run.step', 'message_creation', 'completed']);
  const [message] = (await messagesApi.list(run.thread_id, { run_id: run.id })).data;
  assert.equal(step.step_details.message_creation.message_id, message.id);
  assert.deepEqual(await stepOf(run, step.id), step);
}

const FUNCTIONS = ['add', 'multiply'].map((name) => ({
  type: 'function',
  function: { name, parameters: { type: 'object' } },
}));
const CALLING = '[[call: add {"a": 3, "b": 4}]][[call: multiply {"a": 3, "b": 4}]][[say: Wait.]]';
const OUTPUTS = { add: '7', multiply: '12' };

// What a run is made of that calls two functions at once.
const newCallingThread = async () => [
  await newThread(CALLING),
  { assistant_id: (await assistantsApi.create({ model: 'gpt-4o', tools: FUNCTIONS })).id },
];

function outputsFor(run) {
  assert.equal(run.status, 'requires_action');
  const calls = run.required_action.submit_tool_outputs.tool_calls;
  for (const call of calls) assert.deepEqual(JSON.parse(call.function.arguments), { a: 3, b: 4 });
  return calls.map((call) => ({ tool_call_id: call.id, output: OUTPUTS[call.function.name] }));
}

// The run is completed, after one step with both calls and their outputs.
async function assertCalled(run) {
  await assertRetrievable(run);
  assert.equal(run.status, 'completed');
  const made = (await all(stepsOf(run))).reverse();
  const kinds = ['message_creation', 'tool_calls', 'message_creation'];
  assert.deepEqual(made.map(({ type, status }) => [type, status]), kinds.map((kind) => [kind, 'completed']));
  const called = made[1].step_details.tool_calls.map(({ function: { name, output } }) => [name, output]);
  assert.deepEqual(Object.fromEntries(called), OUTPUTS);
  assert.equal(run.usage.total_tokens, made.reduce((sum, { usage }) => sum + usage.total_tokens, 0));
}

async function streamed_functions() {
  const stream = runsApi.stream(...(await newCallingThread()));
  const calls = new Map();
  let text = '';
  stream
    .on('toolCallDelta', (delta, snapshot) => calls.set(snapshot.id, snapshot))
    .on('textDelta', (delta) => (text += delta.value ?? ''));
  const waiting = await stream.finalRun();
  const tool_outputs = outputsFor(waiting);
  const shown = ({ id, function: { name, arguments: given } }) => [id, name, given];
  const asked = waiting.required_action.submit_tool_outputs.tool_calls;
  assert.deepEqual([...calls.values()].map(shown), asked.map(shown));
  assert.equal(text, 'Wait.');
  const ids = [waiting.thread_id, waiting.id];
  const one = { tool_outputs: tool_outputs.slice(0, 1) };
  const error = await refusal(BadRequestError, runsApi.submitToolOutputs(...below(...ids, one)));
  const listed = asked.map(({ id }) => `'${id}'`);
  const expected = `Expected tool outputs for call_ids [${listed.join(', ')}], got [${listed[0]}]`;
  assert.equal(error.error.message, expected);
  const answering = runsApi.submitToolOutputsStream(...below(...ids, { tool_outputs }));
  const [run, said] = [await answering.finalRun(), await answering.finalMessages()];
  assert.deepEqual(texts(said), ['Wait.']);
  await assertCalled(run);
}

async function polled_functions() {
  const run = await runsApi.createAndPoll(...(await newCallingThread()));
  const ids = [run.thread_id, run.id];
  const tool_outputs = outputsFor(run);
  await assertCalled(await runsApi.submitToolOutputsAndPoll(...below(...ids, { tool_outputs })));
  const error = await refusal(BadRequestError, runsApi.submitToolOutputs(...below(...ids, { tool_outputs: [] })));
  assert.equal(error.error.message, 'Runs in status "completed" do not accept tool outputs.');
}

async function event_handler() {
  const stream = runsApi.stream(await newThread(), { assistant_id: await newAssistant() });
  const ended = [];
  let text = '';
  stream
    .on('textDelta', (delta, snapshot) => {
      text += delta.value ?? '';
      assert.equal(snapshot.value, text);
    })
    .on('textDone', (done) => ended.push(['text', done.value]))
    .on('messageDone', (message) => ended.push(['message', ...texts([message])]))
    .on('runStepDone', (step) => ended.push(['step', step.status]))
    .on('end', () => ended.push(['stream']));
  const [run, said, made] = [await stream.finalRun(), await stream.finalMessages(), await stream.finalRunSteps()];
  assert.equal(run.status, 'completed');
  assert.deepEqual([texts(said), text], [[ANSWER], ANSWER]);
  assert.deepEqual(ended, [['text', ANSWER], ['message', ANSWER], ['step', 'completed'], ['stream']]);
  assert.equal(made.length, 1);
  await assertRetrievable(run, said);
}

async function text_deltas() {
  const stream = runsApi.stream(await newThread('[[tokens: 40]]'), { assistant_id: await newAssistant() });
  const deltas = [];
  for await (const { event, data } of stream)
    if (event === 'thread.message.delta') deltas.push(data.delta.content[0].text.value);
  assert.equal(deltas.join(''), words(40));
  assert.ok(deltas.length > 1);
}

async function events_of_a_run() {
  const stream = await runsApi.create(await newThread(), { assistant_id: await newAssistant(), stream: true });
  const events = await all(stream);
  const deltas = events.filter(({ event }) => event === 'thread.message.delta');
  const names = [...EVENTS_BEFORE_TEXT, ...deltas.map(({ event }) => event), ...EVENTS_AFTER_TEXT];
  assert.deepEqual(events.map(({ event }) => event), names);
  assert.equal(deltas.map(({ data }) => data.delta.content[0].text.value).join(''), ANSWER);
  await assertRetrievable(events.at(-1).data);
}

async function stream_left_early() {
  const threadId = await newThread('[[pace: 0.02]][[tokens: 40]]');
  const stream = await runsApi.create(threadId, { assistant_id: await newAssistant(), stream: true });
  let run;
  for await (const { data } of stream) {
    run = data;
    break;
  }
  assert.equal((await runsApi.poll(...below(threadId, run.id))).status, 'completed');
  assert.deepEqual(texts((await messagesApi.list(threadId, { run_id: run.id })).data), [words(40)]);
}

async function thread_and_run() {
  const thread = { messages: [{ role: 'user', content: `[[say: ${ANSWER}]]` }] };
  const body = { assistant_id: await newAssistant(), thread };
  const begun = await threadsApi.createAndRun(body);
  const polled = await threadsApi.createAndRunPoll(body);
  const names = (await all(await threadsApi.createAndRun({ ...body, stream: true }))).map(({ event }) => event);
  const stream = threadsApi.createAndRunStream(body);
  const [streamed, said] = [await stream.finalRun(), await stream.finalMessages()];
  assert.deepEqual([names[0], names.at(-1)], ['thread.created', 'thread.run.completed']);
  const ended = [await runsApi.poll(...below(begun.thread_id, begun.id)), polled, streamed];
  assert.deepEqual(ended.map(({ status }) => status), ['completed', 'completed', 'completed']);
  assert.deepEqual(texts(said), [ANSWER]);
  await assertRetrievable(streamed, said);
}

async function files() {
  const content = Buffer.from('Grüezi');
  const file = await toFile(content, 'grüezi.txt');
  const made = await client.files.create({ file, purpose: 'vision' });
  assert.deepEqual([made.object, made.filename, made.bytes, made.status], ['file', 'grüezi.txt', 7, 'processed']);
  assert.deepEqual(await client.files.retrieve(made.id), made);
  assert.deepEqual((await all(await client.files.list({ purpose: 'vision' }))).map(({ id }) => id), [made.id]);
  assert.deepEqual(Buffer.from(await (await client.files.content(made.id)).arrayBuffer()), content);
  const error = await refusal(BadRequestError, client.files.create({ file: await toFile(content, 'a'), purpose: 'none' }));
  assert.equal(error.param, 'purpose');
  const deleted = await remove(client.files, made.id);
  assert.deepEqual(deleted, { object: 'file', deleted: true, id: made.id });
  await refusal(NotFoundError, client.files.retrieve(made.id));
  assert.deepEqual(await all(await client.files.list()), []);
}

async function uploads() {
  const body = { purpose: 'vision', filename: 'hello.txt', bytes: 12, mime_type: 'text/plain' };
  const made = await client.uploads.create(body);
  assert.deepEqual([made.object, made.status, made.expires_at - made.created_at], ['upload', 'pending', 3600]);
  const add = async (text) => {
    const data = await toFile(Buffer.from(text), 'upload');
    return (await client.uploads.parts.create(made.id, { data })).id;
  };
  const [last, first] = [await add('World!'), await add('Hello ')];
  const done = await client.uploads.complete(made.id, { part_ids: [first, last] });
  assert.equal(done.status, 'completed');
  assert.equal(await (await client.files.content(done.file.id)).text(), 'Hello World!');
  assert.ok((await remove(client.files, done.file.id)).deleted);
  assert.equal((await client.uploads.cancel((await client.uploads.create(body)).id)).status, 'cancelled');
  await refusal(BadRequestError, client.uploads.cancel(made.id));
}

const stores = client.vectorStores;
const inStore = (vector_store_id, id, ...rest) =>
  until4 ? [vector_store_id, id, ...rest] : [id, { vector_store_id, ...rest[0] }];
const foods = () => toFile(Buffer.from(FOODS), 'foods.txt');
const FOODS = 'Filip likes cake.';

async function vector_stores() {
  const expires_after = { anchor: 'last_active_at', days: 3 };
  const made = await stores.create({ name: 'Foods', metadata: { a: '1' }, expires_after });
  assert.deepEqual([made.object, made.name, made.status, made.metadata], ['vector_store', 'Foods', 'completed', { a: '1' }]);
  assert.equal(made.expires_at, made.last_active_at + 3 * 86_400);
  assert.deepEqual(await stores.retrieve(made.id), made);
  assert.deepEqual(await stores.update(made.id, { name: 'Drinks' }), { ...made, name: 'Drinks' });
  const ids = [made.id];
  for (let number = 0; number < 3; number++) ids.push((await stores.create({})).id);
  assert.deepEqual((await all(stores.list({ order: 'asc', limit: 2 }))).map(({ id }) => id), ids);
  for (const id of ids) assert.ok((await remove(stores, id)).deleted);
  await refusal(NotFoundError, stores.retrieve(made.id));
  assert.deepEqual(await all(stores.list()), []);
}

async function files_of_a_store() {
  const { id } = await stores.create({});
  const file = await stores.files.uploadAndPoll(id, await foods());
  assert.deepEqual([file.object, file.status, file.usage_bytes], ['vector_store.file', 'completed', FOODS.length + 1024]);
  assert.deepEqual(await stores.files.retrieve(...inStore(id, file.id)), file);
  assert.equal(file.chunking_strategy.static.max_chunk_size_tokens, 800);
  const two = [await toFile(Buffer.from('One'), '1.txt'), await toFile(Buffer.from('Two'), '2.txt')];
  const batch = await stores.fileBatches.uploadAndPoll(id, { files: two });
  assert.deepEqual([batch.status, batch.file_counts.completed, batch.file_counts.total], ['completed', 2, 2]);
  const ofBatch = (await all(stores.fileBatches.listFiles(...inStore(id, batch.id, { limit: 1 })))).map(({ id }) => id);
  const listed = await all(stores.files.list(id, { filter: 'completed' }));
  assert.deepEqual(listed.map(({ id }) => id), [...ofBatch, file.id]);
  const cancelled = await stores.fileBatches.create(id, { file_ids: ofBatch });
  const { status } = await stores.fileBatches.cancel(...inStore(id, cancelled.id));
  assert.ok(['completed', 'cancelled'].includes(status));
  assert.equal((await stores.fileBatches.retrieve(...inStore(id, cancelled.id))).file_counts.total, 2);
  const table = await client.files.create({ file: await toFile(Buffer.from('a'), 'a.csv'), purpose: 'assistants' });
  const failed = await stores.files.createAndPoll(id, { file_id: table.id });
  assert.deepEqual([failed.status, failed.last_error.code], ['failed', 'unsupported_file']);
  assert.equal((await stores.retrieve(id)).file_counts.total, 4);
  assert.ok((await remove(stores.files, ...inStore(id, file.id))).deleted);
  await refusal(NotFoundError, stores.files.retrieve(...inStore(id, file.id)));
}

async function search() {
  const { id } = await stores.create({});
  const file = await stores.files.uploadAndPoll(id, await foods());
  const attributes = { year: 2024 };
  const changed = await stores.files.update(...inStore(id, file.id, { attributes }));
  assert.deepEqual(changed, { ...file, attributes });
  const filters = { type: 'eq', key: 'year', value: 2024 };
  const [found, ...others] = await all(stores.search(id, { query: 'cake', filters }));
  assert.deepEqual(others, []);
  assert.deepEqual([found.file_id, found.filename, found.attributes], [file.id, 'foods.txt', attributes]);
  assert.ok(0 <= found.score && found.score <= 1);
  const content = await all(stores.files.content(...inStore(id, file.id)));
  assert.deepEqual(content.map(({ text }) => text), [FOODS]);
}

async function errors() {
  const unknown = `thread_${'0'.repeat(24)}`;
  let error = await refusal(NotFoundError, threadsApi.retrieve(unknown));
  const described = { message: `No thread found with id '${unknown}'.`, type: 'invalid_request_error' };
  assert.deepEqual([error.status, error.error], [404, { ...described, param: null, code: null }]);
  assert.match(error.request_id ?? error.requestID, REQUEST_ID);
  error = await refusal(BadRequestError, assistantsApi.create({ model: 'm', foo: 1 }));
  assert.match(error.message, /Unknown parameter: 'foo'\./);
  assert.deepEqual([error.status, error.param, error.code], [400, 'foo', 'unknown_parameter']);
  const nobody = new OpenAI({ apiKey: 'sk-nobody', maxRetries: 0 });
  error = await refusal(AuthenticationError, nobody.beta.assistants.list());
  assert.deepEqual([error.status, error.code, error.type], [401, 'invalid_api_key', 'invalid_request_error']);
}

async function request_ids() {
  const { data, response } = await assistantsApi.create({ model: 'gpt-4o' }).withResponse();
  assert.equal(response.status, 200);
  assert.match(response.headers.get('x-request-id'), REQUEST_ID);
  assert.equal(response.headers.get('openai-version'), '2020-10-01');
  assert.equal(data._request_id, response.headers.get('x-request-id'));
}

const SCENARIOS = [
  models,
  assistants,
  pages_of_assistants,
  threads,
  messages,
  polled_run,
  runs,
  cancelled_run,
  failed_run,
  incomplete_run,
  steps,
  streamed_functions,
  polled_functions,
  event_handler,
  text_deltas,
  events_of_a_run,
  stream_left_early,
  thread_and_run,
  files,
  uploads,
  vector_stores,
  files_of_a_store,
  search,
  errors,
  request_ids,
];

for (const scenario of SCENARIOS) await scenario();
console.log(JSON.stringify({ sdk: VERSION, passed: SCENARIOS.map(({ name }) => name) }));
