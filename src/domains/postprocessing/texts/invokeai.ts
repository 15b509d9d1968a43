/**
 * `invokeai_metadata` as InvokeAI writes it since its version 3 (`invokeai/app/invocations/metadata.py` there), and the
 * `sd-metadata` of the versions before.
 */
import { fieldOf, isFields, jsonOf, Reading, textOf, type Fields } from './reading.ts'

/** @throws Error that says why the text cannot be read */
export function readInvoke(text: string): Reading {
  const json = jsonOf(text)
  if (!isFields(json)) throw new Error('it is no object of JSON')
  const reading = new Reading('invokeai')
  const image = fieldOf(json, 'image')
  return isFields(image) ? readOld(json, image, reading) : readNew(json, reading)
}

/** What a request has of a field of theirs. */
const taken: Record<string, (value: unknown, reading: Reading) => void> = {
  positive_prompt: (value, reading) => reading.take('prompt', 'positive_prompt', value),
  negative_prompt: (value, reading) => value !== null && reading.take('negativePrompt', 'negative_prompt', value),
  width: (value, reading) => reading.take('width', 'width', value),
  height: (value, reading) => reading.take('height', 'height', value),
  seed: (value, reading) => reading.take('seed', 'seed', value),
  steps: (value, reading) => reading.take('steps', 'steps', value),
  cfg_scale: (value, reading) => reading.take('guidance', 'cfg_scale', value),
  scheduler: (value, reading) => readScheduler(value, 'scheduler', reading),
  model(value, reading) {
    const name = textOf(value, 'name') ?? textOf(value, 'model_name')
    if (name === undefined) return reading.lost('model', value, 'it has no name')
    reading.input.model = name
    reading.modelHash = textOf(value, 'hash') ?? null
  },
  rand_device(value, reading) {
    if (value !== 'cpu') reading.lost('rand_device', value, 'noise is drawn on the CPU')
  },
}
const silent = new Set(['app_version', 'generation_mode', 'canvas_v2_metadata', 'ref_images', 'regions'])
const whys: Record<string, string> = {
  strength: 'it is said of a picture that the text does not name: send that picture too',
  init_image: 'it names a picture of that program: send it here, and name it as `picture`',
  vae: 'a picture is decoded by the VAE of its model',
}
const isNothing = (value: unknown): boolean =>
  value === null || value === false || value === '' || value === 0 || (Array.isArray(value) && value.length === 0)

/** Fields that are told one by one, at most. */
const mostFields = 200

function readNew(json: Fields, reading: Reading): Reading {
  for (const [name, value] of Object.entries(json).slice(0, mostFields)) {
    const take = Object.hasOwn(taken, name) ? taken[name] : undefined
    if (take) take(value, reading)
    else if (!silent.has(name) && !isNothing(value))
      reading.lost(name, value, (Object.hasOwn(whys, name) ? whys[name] : undefined) ?? 'image-generation has no such setting')
    else if (Array.isArray(value) && value.length > 0) reading.lost(name, value, 'image-generation has no such setting')
  }
  return reading
}

/** Before version 3: `{ model_weights, image: { prompt, steps, cfg_scale, seed, sampler, width, height } }`. */
function readOld(json: Fields, image: Fields, reading: Reading): Reading {
  const prompt = fieldOf(image, 'prompt')
  const text = Array.isArray(prompt) ? prompt.map((each) => textOf(each, 'prompt') ?? '').join(' ') : prompt
  if (typeof text === 'string') {
    // What is in brackets was the negative prompt.
    const [start, end] = [text.indexOf('['), text.lastIndexOf(']')]
    const isBracketed = start !== -1 && end > start
    reading.take('prompt', 'prompt', (isBracketed ? text.slice(0, start) + text.slice(end + 1) : text).trim())
    if (isBracketed) reading.take('negativePrompt', 'prompt', text.slice(start + 1, end))
  }
  const model = textOf(json, 'model_weights')
  if (model !== undefined) reading.input.model = model
  for (const [name, value] of Object.entries(image).slice(0, mostFields)) {
    if (['width', 'height', 'seed', 'steps', 'cfg_scale'].includes(name)) taken[name]?.(value, reading)
    else if (name === 'sampler') readScheduler(value, name, reading)
    else if (!['prompt', 'type', 'postprocessing'].includes(name) && !isNothing(value))
      reading.lost(name, value, 'image-generation has no such setting')
  }
  return reading
}

/** Their names of solvers that have another one here. */
const solvers: Record<string, string> = { kdpm_2: 'DPM2', kdpm_2_a: 'DPM2 a', dpm_2: 'DPM2', dpm_2_a: 'DPM2 a', dpmpp_2: 'DPM++ 2M' }

/** A name such as `dpmpp_2m_sde_k`, whose last letter is Karras' schedule. */
function readScheduler(value: unknown, name: string, reading: Reading): void {
  if (typeof value !== 'string') return reading.lost(name, value, 'it is no name')
  const isOld = value.startsWith('k_')
  const isKarras = !isOld && value.endsWith('_k')
  const base = isOld ? value.slice(2) : isKarras ? value.slice(0, -2) : value
  const sampler = (Object.hasOwn(solvers, base) ? solvers[base] : undefined) ?? base
  reading.takePair(reading.input, { sampler, schedule: isKarras ? 'Karras' : undefined }, { sampler: name, schedule: name })
}
