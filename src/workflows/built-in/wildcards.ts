/**
 * Texts with choices: `{red|blue}` is one of its parts, `__colors__` one line of a file of the operator. Choices may
 * stand in choices, and in lines. A backslash before `{`, `|`, `}` or `_` takes the meaning from it.
 */

/** A text, as what stands in a row: letters, or one of several. */
type Part = string | Choice
interface Choice {
  of: readonly Template[]
}
type Template = readonly Part[]

/** Lines that stand for a name; whatever it throws is the refusal. */
export type ReadLines = (name: string) => Promise<readonly string[]>

/** How deep choices may stand in one another, those of files included. */
const maxDepth = 16

/** A text that is no template, with the reason. */
export class BadTemplate extends Error {}

const marks = /[{}\\]|__/

/** Templates by their text: each is read once, and so is each file. */
export class Wildcards {
  readonly #read: ReadLines
  readonly #templates = new Map<string, Template>()
  readonly #lines = new Map<string, Promise<readonly string[]>>()
  readonly #files = new Map<string, Choice>()

  constructor(read: ReadLines) {
    this.#read = read
  }

  /** @throws BadTemplate; whatever a file is refused with */
  async template(text: string): Promise<Template> {
    const known = this.#templates.get(text)
    if (known) return known
    const template = marks.test(text) ? await this.#whole(parse(text, 'its text'), []) : [text]
    this.#templates.set(text, template)
    return template
  }

  /**
   * The template with the lines of its files in their places; `within`: the files that it stands in. One after another:
   * two that wait for each other's file would wait for ever where files name one another.
   */
  async #whole(template: Written, within: readonly string[]): Promise<Template> {
    const whole: Part[] = []
    for (const part of template) {
      if (typeof part === 'string') whole.push(part)
      else if ('file' in part) whole.push(await this.#file(part.file, within))
      else {
        const of: Template[] = []
        for (const each of part.of) of.push(await this.#whole(each, within))
        whole.push({ of })
      }
    }
    return whole
  }

  async #file(name: string, within: readonly string[]): Promise<Choice> {
    const known = this.#files.get(name)
    if (known) return known
    if (within.includes(name)) throw new BadTemplate(`the wildcard file ${name} names itself: ${[...within, name].join(' → ')}`)
    if (within.length === maxDepth) throw new BadTemplate(`wildcard files name one another more than ${maxDepth} deep`)
    const lines = this.#lines.get(name) ?? this.#read(name)
    this.#lines.set(name, lines)
    const of: Template[] = []
    for (const line of await lines)
      of.push(await this.#whole(parse(line, `line ${JSON.stringify(line.slice(0, 60))} of the wildcard file ${name}`), [...within, name]))
    const file = { of }
    this.#files.set(name, file)
    return file
  }
}

/** One of the texts that a template stands for, by chance. @param draw a whole number below its argument */
export const drawn = (template: Template, draw: (below: number) => number): string =>
  template.map((part) => (typeof part === 'string' ? part : drawn(part.of[draw(part.of.length)] ?? [], draw))).join('')

/** How many texts a template stands for; equal ones count each. */
export const countOf = (template: Template): number =>
  template.reduce((product, part) => product * (typeof part === 'string' ? 1 : choicesOf(part)), 1)

/** Files stand in many places, and are counted once. */
const counted = new WeakMap<Choice, number>()
function choicesOf(choice: Choice): number {
  const count = counted.get(choice) ?? choice.of.reduce((sum, each) => sum + countOf(each), 0)
  counted.set(choice, count)
  return count
}

/** The n-th of them, from 0; what stands last changes first. */
export function nth(template: Template, n: number): string {
  let left = n
  let text = ''
  for (const part of template.toReversed()) {
    if (typeof part === 'string') text = part + text
    else {
      const counts = part.of.map(countOf)
      const count = choicesOf(part)
      let within = left % count
      left = Math.floor(left / count)
      const at = counts.findIndex((each) => within < each || ((within -= each), false))
      text = nth(part.of[at] ?? [], within) + text
    }
  }
  return text
}

/** A template as it is written: files are names. */
type Written = readonly (string | { of: readonly Written[] } | { file: string })[]

const token = /\\([{}|_])|__([^_\s{}|](?:[^\s{}|]{0,198}?[^_\s{}|])?)__|[{}|]|[^\\{}|_]+|[\s\S]/g

/** @param where what a refusal begins with @throws BadTemplate for a brace without its other half */
function parse(text: string, where: string): Written {
  type Open = { at: number; of: Written[]; now: (string | { of: readonly Written[] } | { file: string })[] }
  const stack: Open[] = [{ at: -1, of: [], now: [] }]
  const add = (part: string | { of: readonly Written[] } | { file: string }): void => {
    const row = stack.at(-1)?.now ?? []
    const last = row.at(-1)
    if (typeof part === 'string' && typeof last === 'string') row[row.length - 1] = last + part
    else row.push(part)
  }
  for (const { 0: found, 1: escaped, 2: file, index } of text.matchAll(token)) {
    const open = stack.at(-1)
    if (escaped !== undefined) add(escaped)
    else if (file !== undefined) add({ file })
    else if (found === '{') {
      if (stack.length > maxDepth) throw new BadTemplate(`${where} has braces more than ${maxDepth} deep in one another`)
      stack.push({ at: index, of: [], now: [] })
    } else if (found === '|' && open && stack.length > 1) {
      open.of.push(open.now)
      open.now = []
    } else if (found === '}') {
      if (!open || stack.length === 1) throw new BadTemplate(`${where} has a \`}\` at character ${index + 1} that closes nothing`)
      stack.pop()
      add({ of: [...open.of, open.now] })
    } else add(found)
  }
  const open = stack.at(-1)
  if (open && stack.length > 1) throw new BadTemplate(`${where} has a \`{\` at character ${open.at + 1} that is never closed`)
  return open?.now ?? []
}
