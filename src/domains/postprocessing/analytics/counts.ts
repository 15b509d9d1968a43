/**
 * What is counted of a step that has ended: how long it took for how many pixels, what it took of memory, what it did
 * to a picture's measures, and what policies said. Pure. A figure has a name of few parts, so a day has few of them.
 */
import type { z } from 'zod'
import type { PicturePin } from '../../values.ts'
import type { check } from '../check.ts'
import type { convert } from '../convert.ts'
import type { enhance } from '../enhance.ts'
import type { score } from '../score.ts'
import type { Measures } from '../settings.ts'
import type { upscale } from '../upscale.ts'

/** `most`: the greatest of all is kept, else their sum. */
export interface Figure {
  name: readonly string[]
  how: 'add' | 'most'
  number: number
}

/** What is known of how a step went. `seconds`: from its begin on the worker to its end. */
export interface Went {
  seconds: number
  peakBytes?: number | undefined
}

type InputOf<O> = O extends { input: z.ZodType<infer Input> } ? Input : never
type OutputOf<O> = O extends { output: z.ZodType<infer Output> } ? Output : never

const add = (name: string[], number: number): Figure => ({ name, how: 'add', number })

/** Of a step of this domain. `by`: which upscaler, format or classifiers; steps of one kind differ by it. */
function ofStep(verb: string, by: string, pixels: number, { seconds, peakBytes }: Went, pictures = 1): Figure[] {
  const name = (figure: string): string[] => ['step', verb, by, figure]
  return [
    add(name('count'), pictures),
    add(name('seconds'), seconds),
    add(name('pixels'), pixels),
    ...(peakBytes === undefined ? [] : [{ name: name('peakBytes'), how: 'most' as const, number: peakBytes }]),
  ]
}

const pixelsOf = ({ width, height }: Pick<PicturePin, 'width' | 'height'>): number => width * height

const ofMeasures = (when: 'before' | 'after', { sharpness, noise, clipping: { dark, light } }: Measures): Figure[] =>
  Object.entries({ sharpness, noise, dark, light }).map(([measure, number]) => add(['step', 'enhance', '', `${when}.${measure}`], number))

type Counted<O> = (input: InputOf<O>, output: OutputOf<O>, went: Went) => Figure[]

const ofUpscale: Counted<typeof upscale> = ({ upscaler }, output, went) => {
  const name = typeof upscaler === 'string' ? upscaler : upscaler.id
  return ofStep('upscale', name, pixelsOf(output), went)
}

const ofEnhance: Counted<typeof enhance> = ({ picture }, { before, after }, went) => [
  ...ofStep('enhance', '', pixelsOf(picture), went),
  ...ofMeasures('before', before),
  ...ofMeasures('after', after),
]

const ofConvert: Counted<typeof convert> = ({ picture, convert: { format } }, { images: [image] }, went) => [
  ...ofStep('convert', format, pixelsOf(picture), went),
  add(['step', 'convert', format, 'bytes'], image?.bytes ?? 0),
]

/** Verdicts are counted of what was drawn: a picture that somebody has checked to try a policy is none of them. */
const ofCheck: Counted<typeof check> = ({ picture, drawn, policies }, { action, policy, fired, unchecked }, went) => {
  const step = ofStep('check', policies.map(({ name }) => name).join(', '), pixelsOf(picture), went)
  if (drawn === undefined) return step
  const named = ({ name, version }: typeof policy, ...rest: string[]): string[] => ['verdict', name, String(version), ...rest]
  return [
    ...step,
    add(named(policy, action), 1),
    ...(unchecked === undefined ? [] : [add(named(policy, 'unchecked'), 1)]),
    ...fired.map((each) => add(named(each.policy, each.action, each.rule), 1)),
  ]
}

const ofScore: Counted<typeof score> = ({ pictures }, _output, went) =>
  ofStep(
    'score',
    '',
    pictures.map(pixelsOf).reduce((sum, pixels) => sum + pixels, 0),
    went,
    pictures.length,
  )

const counted: Readonly<Record<string, (input: never, output: never, went: Went) => Figure[]>> = {
  'postprocessing.upscale': ofUpscale,
  'postprocessing.enhance': ofEnhance,
  'postprocessing.convert': ofConvert,
  'postprocessing.check': ofCheck,
  'postprocessing.score': ofScore,
  'postprocessing.save': (input: PicturePin, _output: never, went: Went) => ofStep('save', '', pixelsOf(input), went),
}

/** Nothing of a step that is none of this domain's. Input and output are those of its operation. */
export const figuresOf = (step: string, input: unknown, output: unknown, went: Went): Figure[] =>
  counted[step]?.(input as never, output as never, went) ?? []
