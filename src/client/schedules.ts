/** Schedules of a client: submissions that are made again and again. */
import { nothing } from './answers.ts'
import type { Http } from './http.ts'
import type { AddSchedule, Schedule } from './types.ts'

const pathOf = (id: string): string => `/v1/schedules/${encodeURIComponent(id)}`

export class SchedulesClient {
  readonly #http: Http

  constructor(http: Http) {
    this.#http = http
  }

  /** @throws Problem the refusal of the rule, or of what would be submitted */
  add(schedule: AddSchedule): Promise<Schedule> {
    return this.#http.json('POST', '/v1/schedules', { body: schedule, again: false })
  }

  /** Newest first. */
  async list(): Promise<Schedule[]> {
    return (await this.#http.json<{ schedules: Schedule[] }>('GET', '/v1/schedules')).schedules
  }

  /** @throws Problem `schedule.unknown` */
  get(id: string): Promise<Schedule> {
    return this.#http.json('GET', pathOf(id))
  }

  /** Nothing that a pause leaves out is made up for. */
  control(id: string, verb: 'pause' | 'resume'): Promise<Schedule> {
    return this.#http.json('POST', `${pathOf(id)}/${verb}`)
  }

  /** Its sessions go on. */
  async remove(id: string): Promise<void> {
    await this.#http.request('DELETE', pathOf(id), nothing)
  }
}
