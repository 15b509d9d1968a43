/**
 * Cuts a byte stream at 0x0A, never inside a character. A line over `cap` bytes (newline included) calls `tooLong` once
 * and is dropped.
 */
export function splitLines(cap: number, onLine: (line: Buffer) => void, tooLong: () => void): (chunk: Buffer) => void {
  let parts: Buffer[] = []
  let length = 0
  let dropping = false
  return (chunk) => {
    let from = 0
    while (from < chunk.length) {
      const newline = chunk.indexOf(0x0a, from)
      const to = newline < 0 ? chunk.length : newline
      length += to - from
      if (!dropping && length >= cap) {
        dropping = true
        parts = []
        tooLong()
      }
      if (!dropping && to > from) parts.push(chunk.subarray(from, to))
      if (newline < 0) return
      if (!dropping) onLine(Buffer.concat(parts))
      parts = []
      length = 0
      dropping = false
      from = newline + 1
    }
  }
}
