/**
 * How steps of postprocessing went, day by day: in Redis, a hash a day, each of bounded size and gone a month later. A
 * figure is counted once the step's result is recorded, by the worker that did it; what one that dies in that very
 * moment has not counted is not counted.
 */
import { figuresOf, type Went } from '../domains/postprocessing/analytics/counts.ts'
import { reportOf, type Day, type Report } from '../domains/postprocessing/analytics/report.ts'
import { keys } from '../keys.ts'
import { runScript, translated, type Redis } from '../redis.ts'

/** Days that are kept, today too. */
export const mostDays = 31
const dayMs = 86_400_000
/** Figures of one day. */
const mostFigures = 2000
/** Characters of one name: names of models and rules are cut. */
const mostName = 100

const dayOf = (at: number): string => new Date(at).toISOString().slice(0, 10)

export class PictureAnalytics {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** Counts a step that has ended well; nothing of one of another domain. @throws DarkroomError `redis.unavailable` */
  async count(step: string, input: unknown, output: unknown, went: Went): Promise<void> {
    const figures = figuresOf(step, input, output, went)
    if (figures.length === 0) return
    const told = figures.flatMap(({ name, how, number }) => [JSON.stringify(name.map((part) => part.slice(0, mostName))), how, number])
    await runScript(this.#redis, 'addFigures', keys.pictureAnalytics(dayOf(Date.now())), [mostDays * dayMs, mostFigures, ...told])
  }

  /** Of so many days, today the last. */
  async report(days: number): Promise<Report> {
    const now = Date.now()
    const names = Array.from({ length: days }, (_, i) => dayOf(now - (days - 1 - i) * dayMs))
    return reportOf(await Promise.all(names.map((day) => this.#day(day))))
  }

  async #day(day: string): Promise<Day> {
    const { dropped = '0', ...figures } = await translated(this.#redis.hgetall(keys.pictureAnalytics(day)))
    return {
      day,
      figures: Object.entries(figures).map(([name, number]) => [JSON.parse(name) as string[], Number(number)] as const),
      dropped: Number(dropped),
    }
  }
}
