/** The figures of some days, put together, and what follows from them. Pure; each list has a bound. */
import { z } from 'zod'
import { Count } from '../../values.ts'
import { actions, type Action } from '../safety/policy.ts'

/** Of operations, policies and rules so many are told, those that were met most often. */
const most = 100

const Rates = z.strictObject({ sharpness: z.number(), noise: z.number(), dark: z.number(), light: z.number() })
const StepFigures = z.strictObject({
  step: z.string().meta({ description: 'upscale, enhance, convert, check, score, save' }),
  by: z.string().nullable().meta({ description: 'the upscaler, format or policies that set it apart' }),
  count: Count,
  seconds: z.number(),
  pixels: Count,
  pixelsPerS: z.number(),
  peakBytes: Count.nullable().meta({ description: 'the most device memory that one took beside its weights' }),
  bytes: Count.nullable().meta({ description: 'of the files that were written' }),
  before: Rates.nullable().meta({ description: 'means of the measures before; of enhance' }),
  after: Rates.nullable(),
})
type StepFigures = z.infer<typeof StepFigures>

const Counts = z.strictObject(Object.fromEntries(actions.map((action) => [action, Count])) as Record<Action, typeof Count>)
const PolicyFigures = z.strictObject({
  policy: z.string(),
  version: z.int(),
  pictures: Count,
  actions: Counts,
  unchecked: Count,
  rules: z.array(z.strictObject({ rule: z.string(), ...Counts.omit({ allow: true }).shape })),
  days: z.array(z.strictObject({ day: z.string(), ...Counts.shape })),
})
type PolicyFigures = z.infer<typeof PolicyFigures>

/** `figure`: which of the report it follows from, as `operations.convert.avif.seconds`; `value`: what that is. */
const Recommendation = z.strictObject({ figure: z.string(), value: z.number(), says: z.string() })
export type Recommendation = z.infer<typeof Recommendation>

export const Report = z
  .strictObject({
    from: z.string().meta({ description: 'the first day, of UTC' }),
    days: Count,
    operations: z.array(StepFigures),
    policies: z.array(PolicyFigures).meta({ description: 'verdicts on what was drawn' }),
    recommendations: z.array(Recommendation),
    dropped: Count.meta({ description: 'figures that were one too many for their day' }),
  })
  .meta({ id: 'PictureAnalytics' })
export type Report = z.infer<typeof Report>

/** Figures of one day, by their names. */
export interface Day {
  /** As 2026-11-29. */
  day: string
  figures: readonly (readonly [name: readonly string[], number: number])[]
  dropped: number
}

const none = (): z.infer<typeof Counts> => ({ allow: 0, flag: 0, blur: 0, block: 0 })
const isAction = (text: string | undefined): text is Action => (actions as readonly (string | undefined)[]).includes(text)

/** `days`: from the first to today, each there once. */
export function reportOf(days: readonly Day[]): Report {
  const steps = new Map<string, Map<string, number>>()
  const policies = new Map<string, PolicyFigures>()
  for (const { day, figures } of days) {
    for (const [name, number] of figures) {
      const [kind, first = '', second = '', third = '', rule] = name
      if (kind === 'step') addTo(steps, `${first}\n${second}`, third, number)
      else if (kind === 'verdict') addVerdict(policies, day, { policy: first, version: Number(second), what: third, rule }, number)
    }
  }
  const told = [...steps].map(([key, figures]) => stepOf(key, figures)).toSorted((a, b) => b.count - a.count)
  const judged = [...policies.values()].toSorted((a, b) => b.pictures - a.pictures)
  const report = {
    from: days[0]?.day ?? '',
    days: days.length,
    operations: told.slice(0, most),
    policies: judged.slice(0, most).map((each) => ({ ...each, rules: each.rules.slice(0, most) })),
    dropped: days.reduce((sum, { dropped }) => sum + dropped, 0),
  }
  return { ...report, recommendations: recommended(report) }
}

/** The greatest of several days counts for a peak, else their sum. */
function addTo(steps: Map<string, Map<string, number>>, key: string, figure: string, number: number): void {
  const figures = steps.get(key) ?? new Map<string, number>()
  steps.set(key, figures)
  const before = figures.get(figure) ?? 0
  figures.set(figure, figure === 'peakBytes' ? Math.max(before, number) : before + number)
}

function stepOf(key: string, figures: ReadonlyMap<string, number>): StepFigures {
  const [step = '', by = ''] = key.split('\n')
  const of = (figure: string): number => figures.get(figure) ?? 0
  const count = of('count')
  const means = (when: string): z.infer<typeof Rates> | null =>
    figures.has(`${when}.sharpness`)
      ? {
          sharpness: of(`${when}.sharpness`) / count,
          noise: of(`${when}.noise`) / count,
          dark: of(`${when}.dark`) / count,
          light: of(`${when}.light`) / count,
        }
      : null
  return {
    step,
    by: by === '' ? null : by,
    count,
    seconds: of('seconds'),
    pixels: of('pixels'),
    pixelsPerS: of('seconds') > 0 ? of('pixels') / of('seconds') : 0,
    peakBytes: figures.get('peakBytes') ?? null,
    bytes: figures.get('bytes') ?? null,
    before: means('before'),
    after: means('after'),
  }
}

interface Named {
  policy: string
  version: number
  /** An action, or `unchecked`. */
  what: string
  rule: string | undefined
}

function addVerdict(policies: Map<string, PolicyFigures>, day: string, { policy, version, what, rule }: Named, number: number): void {
  const key = `${policy}\n${version}`
  const found = policies.get(key) ?? { policy, version, pictures: 0, actions: none(), unchecked: 0, rules: [], days: [] }
  policies.set(key, found)
  if (what === 'unchecked') found.unchecked += number
  if (!isAction(what)) return
  if (rule !== undefined) {
    const known = found.rules.find((each) => each.rule === rule)
    const counts = known ?? { rule, flag: 0, blur: 0, block: 0 }
    if (!known) found.rules.push(counts)
    if (what !== 'allow') counts[what] += number
    return
  }
  found.pictures += number
  found.actions[what] += number
  let today = found.days.at(-1)
  if (today?.day !== day) found.days.push((today = { day, ...none() }))
  today[what] += number
}

/** So few say nothing yet. */
const enough = 20

function recommended({ operations, policies, dropped }: Omit<Report, 'recommendations'>): Recommendation[] {
  return [
    ...policies.flatMap((policy) => [...ofPolicy(policy)]),
    ...operations.flatMap((step) => [...ofEnhanced(step), ...ofSlow(step, operations)]),
    ...ofDropped(dropped),
  ]
}

function* ofPolicy({ policy, version, pictures, actions: taken, unchecked, rules }: PolicyFigures): Generator<Recommendation> {
  const at = `policies.${policy}.${version}`
  if (unchecked > 0)
    yield {
      figure: `${at}.unchecked`,
      value: unchecked,
      says: `${unchecked} of ${pictures} pictures passed without a look: see to the classifiers of ${policy} (darkroom models validate), or take allowUnchecked away.`,
    }
  if (pictures < enough) return
  if (taken.block > pictures / 2) {
    const [worst] = rules.toSorted((a, b) => b.block - a.block)
    yield {
      figure: `${at}.actions.block`,
      value: taken.block,
      says: `${policy} blocks ${taken.block} of ${pictures} pictures${worst ? `, ${worst.block} by ${worst.rule}` : ''}: try a version with another limit on samples (darkroom policies try).`,
    }
  }
  if (pictures >= 50 * enough && taken.allow === pictures)
    yield {
      figure: `${at}.actions.allow`,
      value: taken.allow,
      says: `${policy} has let all of ${pictures} pictures pass: try it on samples that it should not, whether its limits are ever met.`,
    }
}

function* ofEnhanced({ step, count, before, after }: StepFigures): Generator<Recommendation> {
  if (step !== 'enhance' || !before || !after || count < enough) return
  if (after.noise > 1.2 * before.noise)
    yield {
      figure: 'operations.enhance.after.noise',
      value: after.noise,
      says: `enhanced pictures have more noise than before, ${short(after.noise)} and ${short(before.noise)} levels: sharpen less, or denoise more.`,
    }
  const clipped = after.dark + after.light - before.dark - before.light
  if (clipped > 0.02)
    yield {
      figure: 'operations.enhance.after.dark',
      value: after.dark + after.light,
      says: `enhancing clips ${short(100 * clipped)} % more of the values to black and white: less contrast or autoLevels keeps them.`,
    }
}

/** One that takes ten times as long for a pixel as another that was used for the same. */
function* ofSlow(slow: StepFigures, steps: readonly StepFigures[]): Generator<Recommendation> {
  if (slow.count < enough || (slow.step !== 'upscale' && slow.step !== 'convert')) return
  const peers = steps.filter((each) => each.step === slow.step && each.by !== slow.by && each.count >= enough)
  const [fast] = peers.toSorted((a, b) => b.pixelsPerS - a.pixelsPerS)
  if (!fast || slow.pixelsPerS * 10 > fast.pixelsPerS) return
  yield {
    figure: `operations.${slow.step}.${slow.by ?? ''}.pixelsPerS`,
    value: slow.pixelsPerS,
    says: `${slow.by} makes ${short(slow.pixelsPerS / 1e6)} megapixels a second and ${fast.by} ${short(fast.pixelsPerS / 1e6)}: where time matters, the other one is ${short(fast.pixelsPerS / slow.pixelsPerS)} times as fast.`,
  }
}

function* ofDropped(dropped: number): Generator<Recommendation> {
  if (dropped > 0)
    yield {
      figure: 'dropped',
      value: dropped,
      says: `${dropped} figures were one too many for their day, so these are too low: too many versions of policies were in force, or names of upscalers in use.`,
    }
}

const short = (value: number): number => Number(value.toPrecision(3))
