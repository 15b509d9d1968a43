/**
 * Settings of a request by the names of AUTOMATIC1111's web UI: each is declared once, with how it is written and how
 * it is read. What that program has no name for has one of ours.
 */
import { z } from 'zod'
import { AdapterPin, Control, ImageRequest, ownMasks, Sha256, type Hires, type Mask, type upscalers } from '../../values.ts'
import { controlSettings } from './a1111-controls.ts'
import { fromDetail, toDetail } from './detail.ts'
import { jsonOf, numberOf, sizeFrom, type Asked, type Reading, type Setting, type Settings } from './reading.ts'
import { askedOf } from './receipt.ts'

const Name = z.string()
const ToldAdapters = z.array(AdapterPin.extend({ model: Name }))
const ToldEmbeddings = z.array(Name)
const ToldControls = z.array(Control.partial().extend({ model: Name, picture: Sha256.optional() }))

const resizeModes = {
  stretch: 'Just resize',
  crop: 'Crop and resize',
  pad: 'Resize and fill',
  latent: 'Just resize (latent upscale)',
} as const
const contents = { original: 'original', noise: 'latent noise', blur: 'fill' } as const
const inpaintAreas = { whole: 'Whole picture', masked: 'Only masked' } as const
const maskModes = { inside: 'Inpaint masked', outside: 'Inpaint not masked' } as const
const usualPadding = 32

const upscalerNames: Record<(typeof upscalers)[number], string> = {
  latent: 'Latent',
  'latent-bicubic': 'Latent (bicubic)',
  'latent-nearest': 'Latent (nearest-exact)',
  lanczos: 'Lanczos',
  bicubic: 'Bicubic',
  nearest: 'Nearest',
}

/** The key whose value this is. */
const named = <Key extends string>(names: Record<Key, string>, value: string): Key | undefined =>
  (Object.keys(names) as Key[]).find((key) => names[key].toLowerCase() === value.toLowerCase())

const number = (name: string, field: 'steps' | 'guidance' | 'seed' | 'clipSkip' | 'guidanceRescale'): Setting => ({
  name,
  write: (request) => request[field],
  read: (value, reading) => reading.takeNumber(field, name, value),
})

/** A setting of the mask. `read`: undefined for what none may have. */
const ofMask = (
  name: string,
  write: (mask: Mask) => string | number | undefined,
  read: (value: string) => NonNullable<Asked['mask']> | undefined,
): Setting => ({
  name,
  write: ({ mask }) => mask && write(mask),
  read(value, reading) {
    const found = read(value)
    if (found === undefined) reading.lost(name, value, 'no mask may have it')
    else reading.input.mask = { ...reading.input.mask, ...found }
  },
})

/** A setting of the second pass. */
const ofHires = (
  name: string,
  write: (hires: Hires) => string | number | undefined,
  read: (value: string) => NonNullable<Asked['hires']> | string,
): Setting => ({
  name,
  write: ({ hires }) => hires && write(hires),
  read(value, reading) {
    const found = read(value)
    if (typeof found === 'string') reading.lost(name, value, found)
    else reading.input.hires = { ...reading.input.hires, ...found }
  },
})

/** A setting for which that program has no name, and whose value has parts. `read` throws for what it may not be. */
const json = (name: string, write: (request: ImageRequest) => unknown, read: (value: unknown, reading: Reading) => void): Setting => ({
  name,
  write(request) {
    const value = write(request)
    return value === undefined ? undefined : JSON.stringify(value)
  },
  read: (value, reading) => takeJson(reading, name, value, (parsed) => read(parsed, reading)),
})

/** Names with the first digits of their hashes (AutoV3), as that program writes them; ours say more beside it. */
const hashes = (name: string, write: (request: ImageRequest) => readonly { id: string; bodyHash: string }[] | undefined): Setting => ({
  name,
  write: (request) =>
    write(request)
      ?.map(({ id, bodyHash }) => `${id}: ${bodyHash.slice(0, 12)}`)
      .join(', '),
  // What they are the hashes of stands beside them, or in the prompt.
  read: () => undefined,
})

/** Whether the text tells of a second pass: its strength stands in the setting of a picture's. */
export const hasHires = (all: Settings): boolean => ['Hires upscale', 'Hires resize', 'Hires upscaler'].some((name) => all.has(name))

const whole = (value: string, least: number): number | undefined => {
  const found = numberOf(value)
  return found !== undefined && Number.isSafeInteger(found) && found >= least ? found : undefined
}

const pixels = (field: 'blur' | 'grow' | 'padding', value: string): NonNullable<Asked['mask']> | undefined => {
  const found = whole(value, 0)
  return found === undefined ? undefined : { [field]: found }
}

/** Nothing of the picture is lost with these. */
export const silent: readonly string[] = ['Version']

/** In the order in which they are written. */
export const settings: readonly Setting[] = [
  number('Steps', 'steps'),
  {
    name: 'Sampler',
    write: ({ sampler }) => sampler,
    read: (sampler, reading, all) =>
      reading.takePair(reading.input, { sampler, schedule: all.get('Schedule type') }, { sampler: 'Sampler', schedule: 'Schedule type' }),
  },
  { name: 'Schedule type', write: ({ schedule }) => schedule, read: () => undefined },
  number('CFG scale', 'guidance'),
  number('Seed', 'seed'),
  {
    name: 'Size',
    write: ({ width, height }) => `${width}x${height}`,
    read(value, reading) {
      const size = sizeFrom(value)
      if (!size) return reading.lost('Size', value, 'it is no size such as 512x768')
      reading.take('width', 'Size', size.width)
      reading.take('height', 'Size', size.height)
    },
  },
  {
    name: 'Model hash',
    write: ({ model }) => model.bodyHash.slice(0, 10),
    read(value, reading) {
      reading.modelHash = value
    },
  },
  {
    name: 'Model',
    write: ({ model }) => model.id,
    read(value, reading) {
      reading.input.model = value
    },
  },
  { name: 'VAE hash', write: ({ model }) => model.vae?.bodyHash.slice(0, 10), read: () => undefined },
  {
    name: 'VAE',
    write: ({ model }) => model.vae?.id,
    read: (value, reading) =>
      reading.lost('VAE', value, 'a picture is decoded by the VAE of its model, or by the one that the model is annotated with'),
  },
  number('Clip skip', 'clipSkip'),
  {
    name: 'Variation seed',
    write: ({ variation }) => variation?.seed,
    read(value, reading, all) {
      const strength = numberOf(all.get('Variation seed strength') ?? '')
      reading.take('variation', 'Variation seed', { seed: numberOf(value) ?? value, strength: strength ?? 0 })
    },
  },
  { name: 'Variation seed strength', write: ({ variation }) => variation?.strength, read: () => undefined },
  number('CFG Rescale', 'guidanceRescale'),
  json(
    'Guidance interval',
    ({ guidanceInterval }) => guidanceInterval,
    (value, reading) => reading.take('guidanceInterval', 'Guidance interval', value),
  ),
  {
    name: 'Prompt syntax',
    write: (request) => askedOf(request).promptSyntax,
    read: (value, reading) => reading.take('promptSyntax', 'Prompt syntax', value),
  },
  hashes('Lora hashes', ({ adapters }) => adapters?.map(({ model }) => model)),
  json(
    'Loras',
    (request) => askedOf(request).adapters,
    (value, reading) => (reading.input.adapters = ToldAdapters.parse(value) as NonNullable<Asked['adapters']>),
  ),
  hashes('TI hashes', ({ embeddings }) => embeddings?.map(({ model }) => model)),
  json(
    'Embeddings',
    (request) => askedOf(request).embeddings,
    (value, reading) => (reading.input.embeddings = ToldEmbeddings.parse(value)),
  ),
  ...controlSettings('ControlNets'),
  json(
    'ControlNets',
    (request) => askedOf(request).control,
    (value, reading) => (reading.input.control = ToldControls.parse(value) as NonNullable<Asked['control']>),
  ),
  json(
    'Reference images',
    (request) => askedOf(request).references,
    (value, reading) => (reading.input.references = z.array(Sha256).parse(value)),
  ),
  json(
    'Sizes told',
    ({ sizes }) => sizes,
    (value, reading) => reading.take('sizes', 'Sizes told', value),
  ),
  {
    name: 'Init image',
    write: ({ picture }) => picture?.sha256,
    read(value, reading) {
      if (/^[0-9a-f]{64}$/.test(value)) reading.input.picture = value
      else reading.lost('Init image', value, 'it is no id of a picture here')
    },
  },
  {
    name: 'Resize mode',
    write: ({ resize }) => resize && resizeModes[resize],
    read(value, reading) {
      const resize = named(resizeModes, value)
      if (resize) reading.input.resize = resize
      else reading.lost('Resize mode', value, `it is none of ${Object.values(resizeModes).join(', ')}`)
    },
  },
  {
    name: 'Denoising strength',
    write: ({ strength, hires }) => hires?.strength ?? strength,
    read(value, reading, all) {
      if (!hasHires(all)) return reading.takeNumber('strength', 'Denoising strength', value)
      const strength = ImageRequest.shape.strength.safeParse(numberOf(value))
      if (strength.success && strength.data !== undefined) reading.input.hires = { ...reading.input.hires, strength: strength.data }
      else reading.lost('Denoising strength', value, 'it must be a number from 0 to 1')
    },
  },
  ofMask(
    'Mask',
    ({ source }) => maskName(source),
    (source) => (/^[0-9a-f]{64}$/.test(source) || (ownMasks as readonly string[]).includes(source) ? { source } : undefined),
  ),
  ofMask(
    'Mask blur',
    ({ blur }) => blur,
    (value) => pixels('blur', value),
  ),
  ofMask(
    'Mask grow',
    ({ grow }) => grow || undefined,
    (value) => pixels('grow', value),
  ),
  ofMask(
    'Mask mode',
    ({ invert }) => (invert ? maskModes.outside : undefined),
    (value) => (Object.values<string>(maskModes).includes(value) ? { invert: value === maskModes.outside } : undefined),
  ),
  ofMask(
    'Masked content',
    ({ fill }) => (fill === 'original' ? undefined : contents[fill]),
    (value) => {
      const fill = named(contents, value)
      return fill && { fill }
    },
  ),
  ofMask(
    'Inpaint area',
    ({ area }) => (area === 'masked' ? inpaintAreas[area] : undefined),
    (value) => {
      const area = named(inpaintAreas, value)
      return area && { area }
    },
  ),
  ofMask(
    'Masked area padding',
    ({ area, padding }) => (area === 'masked' || padding !== usualPadding ? padding : undefined),
    (value) => pixels('padding', value),
  ),
  ofHires(
    'Hires upscale',
    () => undefined,
    (value) => {
      const scale = numberOf(value)
      return scale !== undefined && scale > 0 ? { scale } : 'it is no number above 0'
    },
  ),
  ofHires(
    'Hires resize',
    ({ width, height }) => `${width}x${height}`,
    (value) => sizeFrom(value) ?? 'it is no size such as 512x768',
  ),
  ofHires(
    'Hires steps',
    ({ steps }) => steps,
    (value) => {
      // That program writes 0 for as many steps as the first pass has.
      if (value === '0') return {}
      const steps = whole(value, 1)
      return steps === undefined ? 'it is no number of steps' : { steps }
    },
  ),
  ofHires(
    'Hires upscaler',
    ({ upscaler }) => (typeof upscaler === 'string' ? upscalerNames[upscaler] : upscaler.id),
    (value) => {
      const upscaler = named(upscalerNames, value)
      if (upscaler) return { upscaler }
      // All others are networks, by the names of their files.
      if (!/^(none$|latent)/i.test(value)) return { upscaler: value }
      return `there is no such upscaler; there are ${Object.values(upscalerNames).join(', ')}, and names of networks`
    },
  ),
  { name: 'Hires sampler', write: ({ hires }) => hires?.sampler, read: () => undefined },
  { name: 'Hires schedule type', write: ({ hires }) => hires?.schedule, read: () => undefined },
  ofHires(
    'Hires prompt',
    ({ prompt }) => prompt,
    (prompt) => ({ prompt }),
  ),
  ofHires(
    'Hires negative prompt',
    (hires) => hires.negativePrompt,
    (negativePrompt) => ({ negativePrompt }),
  ),
  json(
    'Detail',
    ({ detail }) => detail?.map(fromDetail),
    (value, reading) => (reading.input.detail = toDetail(value)),
  ),
]

function maskName(source: Mask['source']): string | undefined {
  if (typeof source === 'string') return source
  return 'sha256' in source ? source.sha256 : undefined
}

function takeJson(reading: Reading, name: string, value: string, take: (json: unknown) => void): void {
  try {
    take(jsonOf(value))
  } catch (error) {
    reading.lost(name, value, `it cannot be read: ${(error as Error).message.slice(0, 200)}`)
  }
}
