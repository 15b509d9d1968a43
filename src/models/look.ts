/** Questions to a file system that may not answer. */

/** How long one answer may take, ms: what takes longer is a network folder that hangs. */
const lookMs = 5000

/** Asks the file system about `path`. @throws SilentFolder when it does not answer in time, or did not the last time */
export type Look = <T>(path: string, act: () => Promise<T>) => Promise<T>

export class SilentFolder extends Error {
  constructor(path: string, ms: number) {
    super(`${path} did not answer within ${ms / 1000} s`)
    this.name = 'SilentFolder'
  }
}

/**
 * Looks into one folder and what is below. After a question that was not answered nothing more is asked until it is:
 * each one that hangs holds a thread of this process.
 */
export function looker(ms = lookMs): Look {
  let hanging = 0
  return <T>(path: string, act: () => Promise<T>): Promise<T> => {
    if (hanging > 0) return Promise.reject(new SilentFolder(path, ms))
    return new Promise<T>((resolve, reject) => {
      let isLate = false
      const timer = setTimeout(() => {
        isLate = true
        hanging++
        reject(new SilentFolder(path, ms))
      }, ms)
      const settled = (): void => {
        clearTimeout(timer)
        if (isLate) hanging--
      }
      act().then(
        (answer) => {
          settled()
          resolve(answer)
        },
        (error: unknown) => {
          settled()
          reject(error instanceof Error ? error : new Error(String(error)))
        },
      )
    })
  }
}

/** Does it to every item, `width` at a time: each look that hangs would hold one of Node's four threads. */
export async function eachOf<T>(items: readonly T[], act: (item: T) => Promise<void>, width = 2): Promise<void> {
  let next = 0
  const turn = async (): Promise<void> => {
    while (next < items.length) await act(items[next++] as T)
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, turn))
}
