/** A read whose answer serves for `ms`; one that failed is made again. */
export function recent<T>(ms: number, read: () => Promise<T>): () => Promise<T> {
  let at = -Infinity
  let answer: Promise<T>
  return () => {
    if (performance.now() - at <= ms) return answer
    at = performance.now()
    answer = read()
    answer.catch(() => (at = -Infinity))
    return answer
  }
}
