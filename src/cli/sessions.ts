/** `darkroom generate | sessions | show | pause | resume | cancel | retry`: clients of the API. */
import {
  Problem,
  type BlockedImage,
  type DarkroomClient,
  type Frame,
  type Image,
  type ImageRequest,
  type ListFilter,
  type Receipt,
  type RunOptions,
  type Session,
} from '../client/index.ts'
import type { Format, Quality } from '../domains/postprocessing/settings.ts'
import { ownMasks, type Box } from '../domains/values.ts'
import type { ControlVerb } from '../engine/session.ts'
import { invalidFields } from '../errors.ts'
import { connectApi, type ConnectionOptions } from './connection.ts'
import { controlOf, type ControlOptions } from './control.ts'
import { dryRun } from './dry-run.ts'
import { eachUploaded, savePictures, uploaded } from './pictures.ts'
import { postprocessOf } from './postprocess.ts'
import { describeProgress, duration, percent } from './progress.ts'
import { Exit, fields, inline, progressView, say, sayJson, silentView, table, whisper, type ProgressView } from './terminal.ts'

export interface Output extends ConnectionOptions {
  json?: boolean
}

type Mask = NonNullable<ImageRequest['mask']>
/** Fields that no option has as they are. */
type NotOptions =
  | 'control'
  | 'references'
  | 'adapters'
  | 'embeddings'
  | 'prompt'
  | 'negativePrompt'
  | 'width'
  | 'height'
  | 'mask'
  | 'variation'
  | 'guidanceInterval'
  | 'postprocess'
  | 'safety'

type Hires = NonNullable<ImageRequest['hires']>

export interface GenerateOptions extends Output, ControlOptions, Omit<ImageRequest, NotOptions | 'hires' | 'detail'> {
  lora?: NonNullable<ImageRequest['adapters']>
  embedding?: string[]
  /** Files, or ids of pictures. */
  reference?: string[]
  /** A file, the id of a picture, `alpha` or `border`. */
  mask?: string
  invertMask?: boolean
  growMask?: number
  blurMask?: number
  fill?: Mask['fill']
  area?: Mask['area']
  padding?: number
  /** How many times larger; true for the usual. */
  hires?: number | true
  upscaler?: Hires['upscaler']
  hiresSteps?: number
  hiresStrength?: number
  detail?: Box[]
  detailStrength?: number
  detailPrompt?: string
  /** How many times larger; true for what the upscaler is made for. */
  upscale?: number | true
  upscaleBy?: string
  enhance?: Quality
  format?: Format
  maxBytes?: number
  policy?: string
  redraws?: number
  variationSeed?: number
  variationStrength?: number
  guidanceStart?: number
  guidanceEnd?: number
  negative?: string
  size?: { width: number; height: number }
  out?: string
  priority?: number
  device?: string
  tag?: string[]
  detach?: boolean
  dryRun?: boolean
}

const isOwnMask = (mask: string): mask is (typeof ownMasks)[number] => (ownMasks as readonly string[]).includes(mask)

/**
 * The options that were given of a part of the request.
 * @throws DarkroomError `api.invalid` where there is no such part
 */
function saidOf<Options extends object>(part: string, option: string, isThere: boolean, options: Options): Partial<Options> {
  const said = Object.entries(options).filter(([, value]) => value !== undefined)
  if (isThere || said.length === 0) return Object.fromEntries(said) as Partial<Options>
  throw invalidFields(said.map(([field]) => ({ field, message: `is said of ${part}, and there is none: add ${option}` })))
}

/** Submits a picture, shows its progress, saves it. */
export async function generate(prompt: string, options: GenerateOptions): Promise<void> {
  const { json, url, out, detach, dryRun: isDryRun, priority, device, tag, negative, size, ...more } = options
  const { picture, mask, invertMask: invert, growMask: grow, blurMask: blur, fill, area, padding, ...others } = more
  const {
    variationSeed,
    variationStrength,
    guidanceStart: start,
    guidanceEnd: end,
    lora: adapters,
    embedding: embeddings,
    reference: shown = [],
    policy,
    redraws,
    ...rest
  } = others
  const { hires, upscaler, hiresSteps, hiresStrength, detail, detailStrength, detailPrompt, ...besides } = rest
  const { control, controlModel, preprocessor, preprocessorModel, controlWeight, controlStart, ...steering } = besides
  const { controlEnd, controlMode, controlTask, ...last } = steering
  const { upscale, upscaleBy, enhance, format, maxBytes, ...request } = last
  const how = { controlWeight, controlStart, controlEnd, controlMode, controlTask }
  const ofControl = { control, controlModel, preprocessor, preprocessorModel, ...how }
  const client = await connectApi(url === undefined ? {} : { url })
  const ofMask = saidOf('a mask', '--mask', mask !== undefined, { invert, grow, blur, fill, area, padding })
  const ofHires = saidOf('a second pass', '--hires', hires !== undefined, { upscaler, steps: hiresSteps, strength: hiresStrength })
  const ofDetail = saidOf('a region', '--detail', detail !== undefined, { strength: detailStrength, prompt: detailPrompt })
  if (variationStrength === undefined && variationSeed !== undefined)
    throw invalidFields([{ field: 'variationSeed', message: 'is said of a variation, and there is none: add --variation-strength' }])
  const input = {
    ...request,
    prompt,
    ...(adapters && { adapters }),
    ...(embeddings && { embeddings }),
    ...(variationStrength !== undefined && {
      variation: { strength: variationStrength, ...(variationSeed !== undefined && { seed: variationSeed }) },
    }),
    ...((start !== undefined || end !== undefined) && {
      guidanceInterval: { ...(start !== undefined && { start }), ...(end !== undefined && { end }) },
    }),
    ...size,
    ...(negative !== undefined && { negativePrompt: negative }),
    ...(picture !== undefined && { picture: await uploaded(client, picture) }),
    ...(mask !== undefined && { mask: { ...ofMask, source: isOwnMask(mask) ? mask : await uploaded(client, mask) } }),
    ...(hires !== undefined && { hires: { ...ofHires, ...(hires !== true && { scale: hires }) } }),
    ...(detail && { detail: detail.map((box) => ({ box, ...ofDetail })) }),
    ...(await controlOf(client, ofControl)),
    ...(shown.length > 0 && { references: await eachUploaded(client, shown) }),
    ...postprocessOf({ upscale, upscaleBy, enhance, format, maxBytes }),
    ...((policy !== undefined || redraws !== undefined) && {
      safety: { ...(policy !== undefined && { policy }), ...(redraws !== undefined && { redraws }) },
    }),
  }
  const about = {
    ...(priority !== undefined && { priority }),
    ...(device !== undefined && { device }),
    ...(tag && { tags: tag }),
  }
  if (isDryRun) return dryRun(client, { workflow: 'image-generation', input, ...about }, json)
  const submitted = await client.generate(input, about)
  if (detach) return json ? sayJson(submitted) : say(submitted.id)
  if (!json) whisper(inline(`session ${submitted.id}`))
  const session = await follow(client, submitted.id, json ? silentView : progressView())
  const files = session.status === 'succeeded' ? await savePictures(client, session, out) : []
  if (json) sayJson({ ...session, files })
  else {
    for (const file of files) say(`saved ${file}`)
    for (const words of judgements(session)) whisper(words)
  }
  if (session.status !== 'succeeded') throw json ? new Exit(1) : Problem.ofSession(session)
}

/** What policies did with its pictures, where they did anything, in words. */
function judgements({ output }: Session): string[] {
  const passed = ((output?.images ?? []) as Image[]).flatMap(({ seed, safety }) => (safety ? [{ seed, safety }] : []))
  return [...passed, ...((output?.['blocked'] ?? []) as BlockedImage[])].flatMap(({ seed, safety }) => {
    const unchecked = safety?.unchecked === undefined ? [] : [inline(`the picture with seed ${seed} was not checked: ${safety.unchecked}`)]
    if (!safety || safety.action === 'allow') return unchecked
    const { action, policy, rule, score, passes } = safety
    const by = `${rule} of policy ${policy.name}, version ${policy.version}${score === null ? '' : `, score ${score.toFixed(3)}`}`
    return [...unchecked, inline(`${action}: the picture with seed ${seed}, by ${by}; what would pass: ${passes}`)]
  })
}

/** Shows a session's progress until it ends. */
export async function watch(client: DarkroomClient, id: string, view: ProgressView, signal?: AbortSignal): Promise<Session> {
  try {
    return await client.untilEnd(id, (frame) => showFrame(view, frame), signal)
  } finally {
    view.stop()
  }
}

/** The same; Ctrl-C stops following, not the session. @throws Exit 130 after Ctrl-C */
export function follow(client: DarkroomClient, id: string, view: ProgressView = progressView()): Promise<Session> {
  const goesOn = `the session goes on: \`darkroom show ${id} --follow\` follows it again, \`darkroom cancel ${id}\` ends it`
  return interruptible(goesOn, (signal) => watch(client, id, view, signal))
}

/** Waits for what goes on without it: Ctrl-C ends the waiting, and says so. @throws Exit 130 after Ctrl-C */
export async function interruptible<T>(goesOn: string, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupt = new AbortController()
  const stop = (): void => interrupt.abort()
  process.once('SIGINT', stop)
  try {
    return await wait(interrupt.signal)
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
    whisper(goesOn)
    throw new Exit(130)
  } finally {
    process.off('SIGINT', stop)
  }
}

/** Runs a long command, and shows its progress. @throws Exit 130 after Ctrl-C */
export async function watched<T>({ json }: Output, run: (options: RunOptions) => Promise<T>): Promise<T> {
  const view = json ? silentView : progressView()
  try {
    return await interruptible('the command goes on: `darkroom sessions` lists it', (signal) =>
      run({ signal, ...(!json && { onFrame: (frame) => showFrame(view, frame) }) }),
    )
  } finally {
    view.stop()
  }
}

function showFrame(view: ProgressView, frame: Frame): void {
  if (frame.kind === 'progress') return view.show(frame.progress)
  if (frame.type === 'session.succeeded') return view.done()
  const { step, worker, reason } = frame.data as { step?: string; worker?: string; reason?: string }
  if (frame.type === 'step.recovered') view.note(`worker ${worker} was lost in ${step}; another one goes on`)
  if (frame.type === 'step.released') view.note(`worker ${worker} gave ${step} back: ${reason}`)
  if (frame.type === 'step.retrying') view.note(`${step} failed on ${worker} and is tried again`)
  if (frame.type === 'session.paused') view.note('paused')
  if (frame.type === 'session.resumed') view.note('resumed')
}

export async function list(options: Output & ListFilter): Promise<void> {
  const { json, url, ...filter } = options
  const page = await (await connectApi(url === undefined ? {} : { url })).sessions(filter)
  if (json) return sayJson(page)
  if (page.sessions.length === 0) return say('no sessions')
  const now = Date.now()
  const rows = page.sessions.map((session) => [
    session.id,
    session.progress && session.endedAt === null ? `${session.status} ${percent(session.progress.fraction).trim()}` : session.status,
    `${duration((now - Date.parse(session.createdAt)) / 1000)} ago`,
    session.waiting ?? (typeof session.input['prompt'] === 'string' ? session.input['prompt'] : session.workflow),
  ])
  say(table(['SESSION', 'STATUS', 'SUBMITTED', ''], rows))
  if (page.next !== null) whisper(inline(`more: darkroom sessions --cursor ${page.next}`))
}

export async function show(id: string, options: Output & { receipt?: boolean; follow?: boolean }): Promise<void> {
  const client = await connectApi(options)
  if (options.follow && !options.json) await follow(client, id)
  const session = await client.session(id)
  const receipt = options.receipt ? await client.receipt(id) : undefined
  if (options.json) return sayJson(receipt ?? session)
  say(describeSession(session, client.url))
  if (receipt) say(`\n${describeReceipt(receipt)}`)
}

export async function control(verb: ControlVerb, id: string, options: Output): Promise<void> {
  const session = await (await connectApi(options)).control(id, verb)
  if (options.json) sayJson(session)
  else say(inline(`${session.id} ${session.status}`))
}

export async function change(
  id: string,
  { tag, tags, deadline, ...options }: Output & { tag?: string[]; tags?: false; deadline?: number | false },
): Promise<void> {
  const session = await (
    await connectApi(options)
  ).change(id, {
    ...((tag || tags === false) && { tags: tag ?? [] }),
    ...(deadline !== undefined && { deadlineS: deadline === false ? null : deadline }),
  })
  if (options.json) sayJson(session)
  else say(inline(`${session.id} tags: ${session.tags.join(' ') || 'none'}; deadline: ${session.deadlineAt ?? 'none'}`))
}

export async function signal(id: string, type: string, { data, ...options }: Output & { data?: unknown }): Promise<void> {
  const session = await (await connectApi(options)).signal(id, { type, ...(data !== undefined && { data }) })
  if (options.json) sayJson(session)
  else say(inline(`${session.id} ${session.status}`))
}

export async function retry(id: string, options: Output): Promise<void> {
  const session = await (await connectApi(options)).retry(id)
  if (options.json) sayJson(session)
  else say(inline(`${session.id} ${session.status}, a retry of ${session.retryOf}`))
}

function describeSession(session: Session, url: string): string {
  const { id, workflow, status, waiting, progress, error, output, createdAt, startedAt, endedAt, input, tags, retryOf, exactnessKey } =
    session
  const took = startedAt && endedAt ? `, took ${((Date.parse(endedAt) - Date.parse(startedAt)) / 1000).toFixed(1)} s` : ''
  const lines: [string, string | string[] | null | undefined][] = [
    ['session', id],
    ['workflow', workflow],
    ['status', `${status}${took}`],
    ['waits for', waiting],
    ['progress', progress && endedAt === null ? `${percent(progress.fraction).trim()}  ${describeProgress(progress)}` : null],
    ['items', progress?.items && endedAt !== null ? describeProgress(progress) : null],
    ['submitted', createdAt],
    ['device', session.device],
    ['exactness', exactnessKey],
    ['used', describeUse(session.use)],
    ['retry of', retryOf],
    ['child of', session.parent],
    ['tags', tags.join(' ')],
    ...Object.entries(input).map(([name, value]): [string, string] => [
      `  ${name}`,
      typeof value === 'string' ? value : JSON.stringify(value),
    ]),
    ['error', error && [error.message, `${error.remedy} (${error.code})`]],
    ...(output?.images ?? []).map((image, i): [string, string] => [`image ${i + 1}`, `${url}${image.url}`]),
  ]
  return fields(
    lines.filter(([, value]) => value),
    14,
  )
}

/** Nothing of one that had no device. */
function describeUse({ deviceS, lostS, cacheHits, cacheMisses }: Session['use']): string | null {
  if (deviceS === 0) return null
  const lost = lostS === 0 ? '' : `, ${duration(lostS)} of it for nothing`
  return `${duration(deviceS)} on devices${lost}; the model was there ${cacheHits} times of ${cacheHits + cacheMisses}`
}

function describeReceipt(receipt: Receipt): string {
  const rows = receipt.steps.flatMap(({ step, attempts }) =>
    attempts.map(({ worker, startedAt, endedAt, end, resumedFrom }, i) => [
      i === 0 ? step : '',
      worker,
      end ?? 'running',
      endedAt ? `${((Date.parse(endedAt) - Date.parse(startedAt)) / 1000).toFixed(2)} s` : '',
      resumedFrom ? `went on from call ${resumedFrom.call}` : '',
    ]),
  )
  const notes = receipt.notes.map(({ at, note }) => inline(`${at}  ${note}`))
  return [table(['STEP', 'WORKER', 'END', 'TOOK', ''], rows), ...(notes.length > 0 ? ['', ...notes] : [])].join('\n')
}
