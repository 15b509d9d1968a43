/** Two ways to load an engine: as much as it takes, and at a steady rate. */

/**
 * Something that starts and ends: `start` resolves when it is accepted, `onEnd` is called once for each that has ended.
 */
export interface Source {
  start(n: number): Promise<void>
  onEnd: () => void
}

const drainMs = 30_000

/**
 * Keeps `inFlight` under way, lets that settle for `rampMs`, then counts what ends within `windowMs`; all have ended
 * when it resolves.
 * @returns ends a second
 */
export async function saturate(source: Source, options: { inFlight: number; rampMs: number; windowMs: number }): Promise<number> {
  const { inFlight, rampMs, windowMs } = options
  return new Promise((resolve, reject) => {
    let open = 0
    let n = 0
    let ended = 0
    let isStarting = true
    let rate = 0
    const start = (): void => {
      open++
      source.start(n++).catch(reject)
    }
    source.onEnd = () => {
      open--
      ended++
      if (isStarting) start()
      else if (open === 0) resolve(rate)
    }
    setTimeout(() => {
      const before = ended
      const from = performance.now()
      setTimeout(() => {
        rate = ((ended - before) / (performance.now() - from)) * 1000
        isStarting = false
        setTimeout(() => reject(new Error(`void: ${open} did not end`)), drainMs).unref()
      }, windowMs)
    }, rampMs)
    for (let i = 0; i < inFlight; i++) start()
  })
}

/**
 * Starts `rate` a second for `ms`, evenly, whether the ones before have ended or not; all have ended when it resolves.
 */
export async function steady(source: Source, rate: number, ms: number): Promise<void> {
  const count = Math.floor((rate * ms) / 1000)
  return new Promise((resolve, reject) => {
    let started = 0
    let ended = 0
    source.onEnd = () => {
      if (++ended === count) resolve()
    }
    const from = performance.now()
    const timer = setInterval(() => {
      const due = Math.min(count, Math.floor(((performance.now() - from) / 1000) * rate) + 1)
      while (started < due) source.start(started++).catch(reject)
      if (started < count) return
      clearInterval(timer)
      setTimeout(() => reject(new Error(`void: ${count - ended} did not end`)), drainMs).unref()
    }, 1)
  })
}
