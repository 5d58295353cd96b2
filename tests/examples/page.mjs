// Plays the script of the chat page with as much of a browser as it needs, asks what it is told to ask, and prints the
// paragraphs that a reader then sees: node page.mjs BASE_URL QUESTION...

const [base, ...questions] = process.argv.slice(2);
const html = await (await fetch(`${base}/`)).text();
const paragraphs = [];
const form = { question: { value: '' }, reset: () => (form.question.value = '') };
const main = { append: (paragraph) => paragraphs.push(paragraph) };

const document = { querySelector: (name) => ({ form, main })[name], createElement: () => ({ textContent: '' }) };
class FormData {
  constructor(filled) {
    this.question = filled.question.value;
  }
  *[Symbol.iterator]() {
    yield ['question', this.question];
  }
}
const script = html.split('<script>')[1].split('</script>')[0];
const fetchHere = (path, options) => fetch(base + path, options);
new Function('document', 'FormData', 'fetch', script)(document, FormData, fetchHere);
for (const question of questions) {
  form.question.value = question;
  await form.onsubmit({ preventDefault() {} });
}
console.log(JSON.stringify(paragraphs.map(({ className, textContent }) => [className, textContent])));
