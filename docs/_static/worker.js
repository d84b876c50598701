// Python for the live figures, in a thread of its own. The rule is that of the book: rule.py and variants.py, unchanged.
import { loadPyodide } from './npm/pyodide/pyodide.mjs';

const here = new URL('.', import.meta.url).href;

async function start() {
  const files = ['rule.py', 'variants.py', 'walk.py', 'figures.json'];
  const [python, ...texts] = await Promise.all([
    loadPyodide({ indexURL: `${here}npm/pyodide/` }),
    ...files.map((name) => fetch(`${here}play/${name}`).then((reply) => reply.text())),
  ]);
  python.FS.mkdirTree('/book/rprop_lit');
  python.FS.writeFile('/book/rprop_lit/__init__.py', '');
  files.forEach((name, i) => python.FS.writeFile(i < 2 ? `/book/rprop_lit/${name}` : `/book/${name}`, texts[i]));
  return python.runPython("import sys; sys.path.insert(0, '/book'); import walk; walk.answer");
}

const answer = start();
answer.then(() => postMessage({ ready: true }), (error) => postMessage({ failed: String(error) }));

onmessage = async ({ data: { id, question } }) => {
  try {
    postMessage({ id, answer: (await answer)(question) });
  } catch (error) {
    postMessage({ id, failed: String(error) });
  }
};
