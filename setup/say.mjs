/** What set-up tells its user, on stderr: stdout belongs to the command that runs afterwards. */

/**
 * @typedef {object} Say
 * @property {(text: string) => void} line
 * @property {<T>(title: string, work: () => Promise<T>) => Promise<T>} step shows the title, seconds passed, and a mark
 *   at the end
 */

/** @param {NodeJS.WriteStream} [out] @returns {Say} */
export function speaker(out = process.stderr) {
  const isTerminal = out.isTTY === true
  return {
    line: (text) => void out.write(`${text}\n`),
    async step(title, work) {
      const startedAt = performance.now()
      const seconds = () => `${((performance.now() - startedAt) / 1000).toFixed(performance.now() - startedAt < 10_000 ? 1 : 0)} s`
      const draw = () => out.write(`\r\u001b[2K  … ${title}  ${seconds()}`)
      if (isTerminal) draw()
      else out.write(`  … ${title}\n`)
      // Without a terminal a long step says now and then that it lives.
      const timer = isTerminal ? setInterval(draw, 500) : setInterval(() => out.write(`    ${seconds()}\n`), 30_000)
      try {
        const result = await work()
        out.write(`${isTerminal ? '\r\u001b[2K' : ''}  ✓ ${title}  ${seconds()}\n`)
        return result
      } catch (error) {
        out.write(`${isTerminal ? '\r\u001b[2K' : ''}  ✗ ${title}  ${seconds()}\n`)
        throw error
      } finally {
        clearInterval(timer)
      }
    },
  }
}
