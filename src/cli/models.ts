/** `darkroom models`: what lies in the model folders of all hosts. */
import type { Model, ModelPage } from '../client/index.ts'
import { size } from './bars.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { say, sayJson, table, whisper } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

export interface ListOptions extends Output {
  kind?: Model['kind']
  family?: NonNullable<Model['family']>
  status?: Model['status']
  limit?: number
}

const pageLimit = 500

/** Everything that matches, page by page. */
export async function list(text: string | undefined, { kind, family, status, limit = Infinity, json, url }: ListOptions): Promise<void> {
  const client = await connectApi({ ...(url !== undefined && { url }) })
  const models: Model[] = []
  let page: ModelPage | undefined
  do {
    page = await client.models({
      text,
      kind,
      family,
      status,
      limit: Math.min(pageLimit, limit - models.length),
      cursor: page?.next ?? undefined,
    })
    models.push(...page.models)
  } while (page.next !== null && models.length < limit)
  if (json) return sayJson({ models, total: page.total, shelves: page.shelves })
  if (models.length === 0) say('no models match')
  else {
    const rows = models.map((model) => [
      printable(model.id),
      model.kind,
      model.family ?? '',
      model.precision ?? '',
      size(model.bytes),
      model.status,
      printable(model.why ?? model.notes[0] ?? ''),
    ])
    say(table(['MODEL', 'KIND', 'FAMILY', 'PRECISION', 'SIZE', 'STATUS', ''], rows))
  }
  if (page.total > models.length) whisper(`${page.total - models.length} more match`)
  for (const { problems } of page.shelves) for (const { path, problem } of problems) whisper(`${printable(path)}: ${printable(problem)}`)
}

export async function show(id: string, options: Output): Promise<void> {
  const model = await (await connectApi(options)).model(id)
  if (options.json) return sayJson(model)
  const { metadata, quantisation, where } = model
  const parts = model.components.map(({ name, precision, bytes }) => [name, precision, size(bytes)].filter(Boolean).join(' '))
  const lines: [string, string | null][] = [
    ['model', model.id],
    ['kind', [model.kind, model.family, ...model.variants].filter(Boolean).join(', ')],
    ['status', model.status],
    ['because', model.why],
    ['what to do', model.reason?.remedy ?? null],
    ['format', [model.format, model.precision, quantisation?.type].filter(Boolean).join(', ')],
    ['size', `${size(model.bytes)}, ${(model.parameters / 1e6).toFixed(1)} million weights`],
    ['parts', parts.join('; ') || null],
    ['title', metadata.title ?? null],
    ['author', metadata.author ?? null],
    ['licence', metadata.licence ?? null],
    ['trigger words', metadata.triggerWords?.join(', ') ?? null],
    ['body hash', model.bodyHash ?? 'not computed yet'],
    ['sha256', model.sha256],
    ...model.notes.map((note): [string, string] => ['note', note]),
    ...where.map(({ path, workers }): [string, string] => [
      'lies in',
      `${path}, ${workers.length > 0 ? `for ${workers.join(', ')}` : 'for no worker now'}`,
    ]),
  ]
  say(lines.flatMap(([name, value]) => (value === null || value === '' ? [] : [`${name.padEnd(15)}${printable(value)}`])).join('\n'))
}

export async function rescan(options: Output): Promise<void> {
  const { shelves } = await (await connectApi(options)).rescanModels()
  if (options.json) return sayJson({ shelves })
  say(`${shelves.length === 1 ? 'one host looks' : `${shelves.length} hosts look`} at the model folders again`)
}

/** Names of files and texts of strangers: nothing of them is an order to the terminal. */
const printable = (text: string): string =>
  text.replaceAll(/[\p{Cc}\p{Cf}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
