/**
 * Lets waiting sessions in to the devices: whenever a slot may have become free or a session has come, and with each
 * sweep. Any process may do it at any time; the script that lets one in compares what the process has seen.
 */
import type { Config } from '../config.ts'
import type { WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'
import type { Logger } from '../log.ts'
import type { Dispatcher } from './dispatch.ts'
import { Ceilings } from './ceilings.ts'
import type { Lines, Standing } from './lines.ts'
import { Nearness } from './nearness.ts'
import { isOpenTo, type Pauses } from './pauses.ts'
import { isUrgent, victims } from './preemption.ts'
import { Slots, type Holder } from './slots.ts'
import { Turns, type Line, type TurnRules } from './turns.ts'
import type { Usage } from './usage.ts'

/** Of each line so many are read at a time. */
const heads = 16
/** Lines are read so often in one turn; what is left then, the sweep lets in. */
const maxReads = 64

export interface AdmissionParts {
  lines: Lines
  pauses: Pick<Pauses, 'list'>
  dispatcher: Pick<Dispatcher, 'add'>
  workers: () => Promise<WorkerRecord[]>
  weights: () => Promise<ReadonlyMap<string, number>>
  usage: Pick<Usage, 'today'>
  config: Pick<Config, 'ageingS' | 'keyAtOnce' | 'keyDeviceS' | 'modelsInARow'>
  log: Logger
}

export class Admission {
  readonly #parts: AdmissionParts
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  /** How many in a row were let in for their model's sake. */
  #passes = 0

  constructor(parts: AdmissionParts) {
    this.#parts = parts
  }

  /** Lets in who can be. Resolves after a turn that began after the call. */
  wake(): Promise<void> {
    if (!this.#running) {
      this.#running = this.#turn().finally(() => (this.#running = undefined))
      return this.#running
    }
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined
        return this.wake()
      })
    return this.#next
  }

  /** As `wake`, in passing: what fails is left to the sweep. */
  nudge(): void {
    this.wake().catch((error: unknown) => this.#parts.log.debug({ err: error }, 'admission left to the sweep'))
  }

  /** How the order of the lines is reckoned now. */
  async rules(): Promise<TurnRules> {
    const { config, weights } = this.#parts
    const byKey = await weights()
    return { ageingMs: config.ageingS * 1000, weightOf: (key) => byKey.get(key) ?? 1 }
  }

  /** What keeps whom back. */
  async ceilings({ lines, holders }: Standing): Promise<Ceilings> {
    const { usage, config } = this.#parts
    const names = config.keyDeviceS === 0 ? [] : [...new Set(lines.map(({ key }) => key))]
    return new Ceilings(holders, { atOnce: config.keyAtOnce, deviceS: config.keyDeviceS }, await usage.today(names))
  }

  async #turn(): Promise<void> {
    const { lines, pauses, workers } = this.#parts
    for (let i = 0; i < maxReads; i++) {
      const [standing, paused, rules] = await Promise.all([lines.read(heads), pauses.list(), this.rules()])
      const awaitsDevice = standing.holders.some((holder) => queues.isGpu(holder.holder) && isUrgent(holder))
      if (standing.lines.length === 0 && paused.length === 0 && !awaitsDevice) return
      const ready = (await workers()).filter(({ status }) => status === 'ready')
      const open = ready.filter((worker) => isOpenTo(paused, worker))
      if (open.length < ready.length) await this.#withdraw(standing, new Slots(open, []))
      const asked = victims(standing.holders, new Slots(ready, standing.holders))
      await Promise.all(asked.map(({ stepKey, holder }) => lines.askYield(stepKey, holder)))
      if ((await this.#letIn(standing, open, rules)) === 'done') return
    }
  }

  /** What was let in and not begun goes back to its line, where all that would take it are paused. */
  async #withdraw({ holders }: Standing, open: Slots): Promise<void> {
    const { lines } = this.#parts
    const held = holders.filter(({ holder }) => queues.isGpu(holder) && open.workersOf(holder).length === 0)
    await Promise.all(held.map(({ stepKey, holder }) => lines.withdraw(stepKey, holder)))
  }

  /** `again` when the lines must be read again. */
  async #letIn(standing: Standing, open: WorkerRecord[], rules: TurnRules): Promise<'done' | 'again'> {
    const { lines, dispatcher, config } = this.#parts
    const slots = new Slots(open, standing.holders)
    const { lines: waiting, shares, numbers } = standing
    const drawing: Pick<Holder, 'holder' | 'model'>[] = [...standing.holders]
    const ceilings = await this.ceilings(standing)
    const mayEnter = (line: Line): boolean => slots.fits(line.queue, isUrgent(line)) && ceilings.reached(line) === undefined
    let hasUrgent = false
    const turns = new Turns(waiting, shares, rules)
    for (;;) {
      const nearness = new Nearness(open, drawing)
      const near = (line: Line): string | undefined => (isUrgent(line) ? undefined : nearness.of(line, (queue) => slots.fits(queue)))
      const mayPass = this.#passes < config.modelsInARow
      const choice = turns.next(mayEnter, (line) => mayPass && near(line) !== undefined)
      // Of a line that is longer than what was read of it, the next ones are to be looked at too.
      if (!choice) return hasUrgent || waiting.some((line) => line.length > line.head.length && mayEnter(line)) ? 'again' : 'done'
      const { shard, model } = choice.line
      // Beside others on a device begins what comes by the device's own queue; so does what they are to begin beside.
      const only = open.find(({ id }) => id === nearness.only(choice.line.queue))
      const goesNear = only ? only.lanes.gpu > 1 : config.modelsInARow > 0
      const first = only && nearness.isIdle(only.id) && !isUrgent(choice.line) ? queues.gpuDevice(only.device.id) : undefined
      const queue = (goesNear ? (near(choice.line) ?? first) : undefined) ?? choice.line.queue
      const admitted = await lines.admit(choice, queue, numbers)
      if (typeof admitted === 'string') return 'again'
      numbers[shard] = (numbers[shard] ?? 0) + 1
      this.#passes = choice.passes ? this.#passes + 1 : 0
      drawing.push({ holder: queue, model })
      slots.enter(queue)
      ceilings.enter(admitted.stepKey, choice.line)
      hasUrgent ||= isUrgent(choice.line)
      await dispatcher.add(admitted, queue)
    }
  }
}
