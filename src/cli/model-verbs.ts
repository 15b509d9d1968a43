/** `darkroom models load | unload | validate | hash | …`: what is done with one model, with its progress. */
import type { CommandInput, CommandName, CommandOutput, DarkroomClient, Model, OfKind } from '../client/index.ts'
import { bar, size, weights } from './bars.ts'
import { connectApi } from './connection.ts'
import { duration } from './progress.ts'
import { watched, type Output } from './sessions.ts'
import { Exit, fields, inline, say, sayJson, table } from './terminal.ts'

/** `kind`: which of several models with one name. */
export interface OfModel extends Output {
  kind?: Model['kind']
}

export interface OnDevice extends OfModel {
  device?: string
}

export interface Measuring extends OnDevice {
  size?: { width: number; height: number }
  calls?: number
}

const seconds = (value: number): string => (value < 0.1 ? `${(1000 * value).toFixed(1)} ms` : `${value.toFixed(2)} s`)
const speed = (gbPerS: number): string => `${gbPerS.toFixed(2)} GB/s`

/** Runs a command, shows its progress, and prints its output in words or as JSON. */
async function act<Name extends CommandName>(
  name: Name,
  input: CommandInput<Name>,
  { kind, device, ...options }: OnDevice,
  tell: (output: CommandOutput<Name>) => string,
): Promise<CommandOutput<Name>> {
  const client = await connectApi(options)
  const where = device === undefined ? {} : { device }
  const output = await watched(options, (more) => client.run(name, { ...input, kind } as CommandInput<Name>, { ...more, ...where }))
  if (options.json) sayJson(output)
  else say(tell(output))
  return output
}

export async function load(model: string, options: OnDevice): Promise<void> {
  await act('model-loading', { model }, options, ({ id, bytes, wasResident, seconds: took, gbPerS, ramBytes, diskBytes }) => {
    if (wasResident) return inline(`${id} was resident, ${size(bytes)}`)
    const from = ramBytes === 0 ? 'from disk' : diskBytes === 0 ? 'from RAM' : `${size(ramBytes)} of them from RAM`
    return inline(`loaded ${id}, ${size(bytes)} in ${seconds(took)}${gbPerS === null ? '' : `, ${speed(gbPerS)}`}, ${from}`)
  })
}

export async function unload(model: string, { device, ...options }: OnDevice): Promise<void> {
  const input = { model, ...(device !== undefined && { device }) }
  await act('model-unload', input, options, ({ device: from, unloaded, freedBytes }) => {
    const freed = freedBytes === null ? '' : `; the device has ${size(freedBytes)} more`
    if (unloaded.length === 0) return inline(`${model} was not resident on ${from}`)
    return unloaded.map(({ id, bytes }) => inline(`unloaded ${id}, ${size(bytes)}, from ${from}${freed}`)).join('\n')
  })
}

/** @throws Exit 1 when something is wrong with it */
export async function validate(model: string, options: OfModel): Promise<void> {
  const { isValid } = await act('model-validate', { model }, options, (found) => {
    const { path, bytes, findings, findingsMore, bodyHash, recordedHash, sha256 } = found
    const rows = findings.map(({ file, tensor, code, message }) => [file, tensor ?? '', code, message])
    const hash =
      recordedHash === null ? `${bodyHash}, for the first time` : bodyHash === recordedHash ? `${bodyHash}, as recorded` : bodyHash
    const lines = fields(
      [
        ['path', path],
        ['read', `${size(bytes)} in ${seconds(found.seconds)}`],
        ['body hash', hash],
        ['sha256', sha256],
        ['is', found.isValid ? 'sound' : 'not sound'],
      ],
      12,
    )
    const more = findingsMore > 0 ? `\n${findingsMore} more findings` : ''
    return rows.length === 0 ? lines : `${lines}\n\n${table(['FILE', 'TENSOR', 'WHAT', ''], rows)}${more}`
  })
  if (!isValid) throw new Exit(1)
}

export async function hash(model: string, options: OfModel): Promise<void> {
  await act('model-hash', { model }, options, ({ model: { id, bodyHash } }) => inline(`${bodyHash}  ${id}`))
}

export async function inspect(model: string, options: OfModel): Promise<void> {
  await act('model-inspect', { model }, options, ({ path, state, kind, family, format, precision, parameters, bytes, reason, notes }) =>
    fields(
      [
        ['path', path],
        ['is', [kind, family, format, precision].filter(Boolean).join(', ')],
        ['state', state],
        ['size', `${size(bytes)}, ${weights(parameters)}`],
        ['because', reason?.message],
        ['what to do', reason?.remedy],
        ['note', notes],
      ],
      12,
    ),
  )
}

export async function components(model: string, options: OfModel): Promise<void> {
  await act('model-components', { model }, options, ({ bytes: total, components: parts }) => {
    const rows = parts.map(({ name, kind, precision, bytes, at }) => [
      name,
      kind,
      precision ?? '',
      size(bytes),
      bar({ total, used: bytes, evictable: 0 }, 20),
      at,
    ])
    return table(['PART', 'KIND', 'PRECISION', 'SIZE', '', 'AT'], rows)
  })
}

export async function convert(model: string, options: OfModel): Promise<void> {
  await act('model-convert', { model }, options, ({ path, bytes, tensors, skipped }) => {
    const left = skipped.length > 0 ? `; left out, as they are no tensors: ${skipped.join(', ')}` : ''
    return inline(`made ${path}, ${size(bytes)}, ${tensors} tensors${left}`)
  })
}

const picture = ({ size: sides, calls }: Measuring) => ({ ...sides, ...(calls !== undefined && { calls }) })

export async function benchmark(model: string, options: Measuring): Promise<void> {
  await act('model-benchmark', { model, ...picture(options) }, options, (told) =>
    fields(
      [
        ['model', `${told.id}, ${size(told.bytes)} of weights`],
        ['cold load', `${seconds(told.coldLoadS)}, ${speed(told.coldGbPerS)}${told.isCold ? '' : ' (the files may have been in RAM)'}`],
        ['warm load', `${seconds(told.warmLoadS)}, ${speed(told.warmGbPerS)}`],
        ['picture', `${told.width}x${told.height}, ${told.calls} steps of ${told.sampler}`],
        ['texts', seconds(told.encodeS)],
        ['first step', seconds(told.firstCallS)],
        ['steps', `${told.callsPerS.toFixed(2)} a second`],
        ['decode', seconds(told.decodeS)],
        ['most memory', size(told.peakBytes)],
        ['class', told.exactnessKey],
      ],
      12,
    ),
  )
}

export async function optimize(model: string, options: Measuring): Promise<void> {
  await act('model-optimize', { model, ...picture(options) }, options, ({ id, precision, attention, before, after, freedBytes }) => {
    const rows = (['encodeS', 'firstCallS', 'callS', 'decodeS'] as const).map((name) => [
      { encodeS: 'texts', firstCallS: 'first step', callS: 'a step', decodeS: 'decode' }[name],
      seconds(before[name]),
      seconds(after[name]),
    ])
    const freed = freedBytes === null ? '' : `\n${size(freedBytes)} given back to the device`
    return `${inline(`${id} is warm: ${precision}, attention ${attention}`)}\n${table(['', 'BEFORE', 'AFTER'], rows)}${freed}`
  })
}

export interface Annotating extends OfModel {
  title?: string
  tag?: string[]
  notes?: string
  set?: ReadonlyMap<string, string>
  vae?: string
  clear?: boolean
}

/** Changes what the options name, and leaves the rest as it is. */
export async function annotate(model: string, { kind, title, tag, notes, set, vae, clear, ...options }: Annotating): Promise<void> {
  const client = await connectApi(options)
  if (clear) {
    await client.removeAnnotation(model, { kind })
    return options.json ? sayJson(null) : say(inline(`nothing is said of ${model} any more`))
  }
  const before = await said(client, model, { kind })
  const settings = { ...before.settings, ...(set && Object.fromEntries([...set].map(([name, value]) => [name, numeric(value)]))) }
  const after = await client.annotateModel(
    model,
    {
      title: title ?? before.title,
      tags: tag ?? before.tags,
      notes: notes ?? before.notes,
      settings,
      vae: vae === undefined ? before.vae : vae === 'own' ? null : vae,
    },
    { kind },
  )
  if (options.json) return sayJson(after)
  const liked = Object.entries(after.settings).map(([name, value]) => `${name}=${value}`)
  say(
    fields(
      [
        ['title', after.title],
        ['tags', after.tags.join(', ')],
        ['notes', after.notes],
        ['settings', liked.join(' ')],
        ['vae', after.vae?.id ?? null],
      ],
      10,
    ) || 'nothing is said of it',
  )
}

async function said(client: DarkroomClient, model: string, of: OfKind) {
  const nothing = { title: '', tags: [], notes: '', settings: {}, vae: null }
  const { title, tags, notes, settings, vae } = (await client.model(model, of)).annotation ?? nothing
  return { title, tags, notes, settings, vae: vae?.bodyHash ?? null }
}

/** The API refuses what is of another kind than its setting. */
const numeric = (text: string): number | string => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text)

export async function status(model: string, { kind, ...options }: OfModel): Promise<void> {
  const told = await (await connectApi(options)).modelStatus(model, { kind })
  if (options.json) return sayJson(told)
  const now = Date.now()
  say(
    fields(
      [
        ['model', told.id],
        ['status', [told.status, told.why].filter(Boolean).join(': ')],
        ['body hash', told.bodyHash ?? 'not computed yet'],
        [
          'on disk',
          told.onDisk.map(({ path, workers }) => `${path}, ${workers.length > 0 ? `for ${workers.join(', ')}` : 'for no worker now'}`),
        ],
        ['in RAM', told.cached.map(({ device, bytes, uses }) => `of the worker of ${device}, ${size(bytes)}, used ${uses} times`)],
        [
          'resident',
          told.resident.map(({ device, bytes, precision, isIdle, patchedBy }) => {
            const worn = patchedBy.map(({ id, part, weight }) => `${id} at ${weight} in its ${part}`)
            return [device, size(bytes), precision, ...(isIdle ? [] : ['in use']), ...worn].join(', ')
          }),
        ],
        [
          'measured',
          told.benchmarks.map(({ figures, devices, measuredAt }) => {
            const ago = duration((now - Date.parse(measuredAt)) / 1000)
            return `${figures.callsPerS.toFixed(2)} steps a second at ${figures.width}x${figures.height}, cold load ${seconds(figures.coldLoadS)}, on ${devices.join(', ')}, ${ago} ago`
          }),
        ],
      ],
      12,
    ),
  )
}
