/** How tests wait: until something has come about, not for a time; and for a time only where nothing may happen. */

/** How long something may take that a test waits for, on a machine that may be busy, ms. */
export const patienceMs = 30_000

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Polls until `look` finds something. @throws Error that names what did not come about. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined | false>, ms = patienceMs): Promise<T> {
  const until = Date.now() + ms
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > until) throw new Error(`not within ${ms / 1000} s: ${what}`)
    await sleep(25)
  }
}
