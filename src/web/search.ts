/** The search line: `model:flux status:failed tag:cat seed:7 after:2026-01-31 a red fox`; all of it must be met. */
import type { Session } from '../client/types.ts'

const fields = ['model', 'status', 'tag', 'seed', 'workflow', 'after', 'before'] as const
type Field = (typeof fields)[number]

interface Term {
  field: Field | 'words'
  value: string
}

/** What a line asks for; `"two words"` stay together. */
export function readSearch(line: string): Term[] {
  return [...line.matchAll(/(?:(\w+):)?(?:"([^"]*)"?|(\S*))/g)].flatMap(([whole, name, quoted, plain]) => {
    const field = fields.find((each) => each === name?.toLowerCase())
    const value = (field ? (quoted ?? plain ?? '') : whole.replaceAll('"', '')).toLowerCase()
    return value === '' ? [] : [{ field: field ?? 'words', value }]
  })
}

const textOf = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value).toLowerCase() : '')

const tests: Record<Term['field'], (session: Session, value: string) => boolean> = {
  model: ({ input }, value) => textOf(input['model']).includes(value),
  status: ({ status }, value) => status.startsWith(value),
  tag: ({ tags }, value) => tags.some((tag) => tag.toLowerCase() === value),
  seed: ({ input, output }, value) =>
    textOf(input['seed']) === value || (output?.images ?? []).some((image) => textOf(image['seed']) === value),
  workflow: ({ workflow }, value) => workflow.startsWith(value),
  // A day without a time is midnight of that day, here.
  after: ({ createdAt }, value) => Date.parse(createdAt) >= new Date(`${value}T00:00`).getTime(),
  before: ({ createdAt }, value) => Date.parse(createdAt) < new Date(`${value}T00:00`).getTime(),
  words: ({ input, id, workflow, tags }, value) =>
    `${textOf(input['prompt'])} ${textOf(input['negativePrompt'])} ${id} ${workflow} ${tags.join(' ')}`.toLowerCase().includes(value),
}

export const isFound = (session: Session, terms: readonly Term[]): boolean =>
  terms.every(({ field, value }) => tests[field](session, value))
