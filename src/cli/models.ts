/** `darkroom models`: what lies in the model folders of all hosts. */
import type { Compatible, Model, ModelPage } from '../client/index.ts'
import { readConfig } from '../config.ts'
import { importConfigs } from '../models/import-configs.ts'
import { size, weights } from './bars.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { watched } from './sessions.ts'
import { inline, say, sayJson, table, whisper } from './terminal.ts'

interface Output extends ConnectionOptions {
  json?: boolean
}

export interface ListOptions extends Output {
  kind?: Model['kind']
  family?: NonNullable<Model['family']>
  status?: Model['status']
  tag?: string
  limit?: number
}

/** `kind`: which of several models with one name. */
interface OfModel extends Output {
  kind?: Model['kind']
}

const pageLimit = 500

/** Everything that matches, page by page. */
export async function list(
  text: string | undefined,
  { kind, family, status, tag, limit = Infinity, json, url }: ListOptions,
): Promise<void> {
  const client = await connectApi({ ...(url !== undefined && { url }) })
  const models: Model[] = []
  let page: ModelPage | undefined
  do {
    page = await client.models({
      text,
      kind,
      family,
      status,
      tag,
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

export async function show(id: string, { kind, ...options }: OfModel): Promise<void> {
  const client = await connectApi(options)
  const model = await client.model(id, { kind })
  const devices = model.status === 'usable' ? await client.compatible(id, { kind }) : []
  if (options.json) return sayJson({ ...model, compatible: devices })
  const { metadata, quantisation, where } = model
  const parts = model.components.map(({ name, precision, bytes }) => [name, precision, size(bytes)].filter(Boolean).join(' '))
  const lines: [string, string | null][] = [
    ['model', model.id],
    ['kind', [model.kind, model.family, ...model.variants].filter(Boolean).join(', ')],
    ['status', model.status],
    ['because', model.why],
    ['what to do', model.reason?.remedy ?? null],
    ['format', [model.format, model.precision, quantisation?.type].filter(Boolean).join(', ')],
    ['size', `${size(model.bytes)}, ${weights(model.parameters)}`],
    ['parts', parts.join('; ') || null],
    ['title', metadata.title ?? null],
    ['author', metadata.author ?? null],
    ['licence', metadata.licence ?? null],
    ['tags', metadata.tags?.join(', ') ?? null],
    ['trigger words', metadata.triggerWords?.join(', ') ?? null],
    ['called here', model.annotation?.title ?? null],
    ['tags here', model.annotation?.tags.join(', ') ?? null],
    ['notes', model.annotation?.notes ?? null],
    [
      'settings',
      Object.entries(model.annotation?.settings ?? {})
        .map(([name, value]) => `${name}=${value}`)
        .join(' '),
    ],
    ['vae', model.annotation?.vae?.id ?? null],
    ['body hash', model.bodyHash ?? 'not computed yet'],
    ['sha256', model.sha256],
    ...model.notes.map((note): [string, string] => ['note', note]),
    ...where.map(({ path, workers }): [string, string] => [
      'lies in',
      `${path}, ${workers.length > 0 ? `for ${workers.join(', ')}` : 'for no worker now'}`,
    ]),
    ...devices.map((device): [string, string] => ['draws on', compatibility(device)]),
  ]
  say(lines.flatMap(([name, value]) => (value === null || value === '' ? [] : [`${name.padEnd(15)}${printable(value)}`])).join('\n'))
}

interface OnDevice extends OfModel {
  device?: string
}
const on = (model: string, { kind, device }: OnDevice) => ({ model, kind, device })

export async function cache(id: string, options: OnDevice): Promise<void> {
  const client = await connectApi(options)
  const cached = await watched(options, (more) => client.run('model-cache', on(id, options), more))
  if (options.json) return sayJson(cached)
  const { bytes, seconds, device } = cached
  const rate = seconds > 0.01 ? ` in ${seconds.toFixed(1)} s, ${(bytes / seconds / 1e9).toFixed(2)} GB/s` : ''
  say(inline(`cached ${cached.id}, ${size(bytes)}, in the RAM of ${device}’s worker${rate}`))
}

export async function evict(id: string, options: OnDevice): Promise<void> {
  const gone = await (await connectApi(options)).run('model-evict', on(id, options))
  if (options.json) return sayJson(gone)
  say(
    inline(
      gone.evicted.length === 0 ? `${id} was not cached on ${gone.device}` : `evicted ${id}, ${size(gone.bytes)}, from ${gone.device}`,
    ),
  )
}

function compatibility({ device, fits, why, precision, peakBytes, seconds }: Compatible): string {
  if (!fits) return `${device}: no, ${why}`
  const took = seconds && `${seconds.value} s (${seconds.basis})`
  return `${device}: ${[precision, `at most ${size(peakBytes.value)} (${peakBytes.basis})`, took].filter(Boolean).join(', ')}`
}

export async function rescan(options: Output): Promise<void> {
  const { shelves } = await (await connectApi(options)).rescanModels()
  if (options.json) return sayJson({ shelves })
  say(`${shelves.length === 1 ? 'one host looks' : `${shelves.length} hosts look`} at the model folders again`)
}

/** Takes configurations into this user's data folder; the host looks again when its API runs. */
export async function importConfig(folder: string, { name, json, ...connection }: Output & { name?: string }): Promise<void> {
  const imported = await importConfigs(folder, readConfig().data, name)
  const isTold = await connectApi(connection)
    .then((client) => client.rescanModels())
    .then(
      () => true,
      () => false,
    )
  if (json) return sayJson({ ...imported, isTold })
  say(
    table(
      ['PART', 'FILES'],
      imported.parts.map((part) => [part.name, part.files.map(printable).join(', ')]),
    ),
  )
  for (const { file, is } of imported.known) say(`${printable(file)} is ${is}, as published`)
  say(`They lie in ${imported.path}.`)
  if (!isTold) whisper('No API answers; models that lacked them draw once `npm start` has looked at the model folders.')
}

/** Names of files and texts of strangers: nothing of them is an order to the terminal. */
const printable = (text: string): string =>
  text.replaceAll(/[\p{Cc}\p{Cf}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
