import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BadPlace } from '../../host/own-folder.mjs'
import { root as repository } from '../../src/config.ts'
import { openAttemptFolder } from '../../src/workers/attempt-folder.ts'
import { canUnshare, ownProcesses } from '../support/containers.ts'
import { started } from '../support/started.ts'

let folder: string
let root: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-attempts-'))
  root = join(folder, 'attempts')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A process that holds the folder of this name until it is killed. */
async function holder(name: string, inside: string[] = []): Promise<ChildProcess> {
  const script = `const { openAttemptFolder } = await import(${JSON.stringify(join(repository, 'src/workers/attempt-folder.ts'))})
    await openAttemptFolder([${JSON.stringify(root)}], ${JSON.stringify(name)})
    console.log('open'); setInterval(() => {}, 1000)`
  const [command, ...args] = [...inside, process.execPath, '--import', 'tsx', '--input-type=module', '-e', script]
  const child = spawn(command, args, { cwd: repository, stdio: ['ignore', 'pipe', 'inherit'] })
  if (child.pid !== undefined) child.once('exit', started(child.pid))
  await once(child.stdout, 'data')
  return child
}

describe('the folder of a worker', () => {
  it('goes with its worker, however that ends, and never before', async () => {
    const [first, second] = [await holder('first'), await holder('second')]
    writeFileSync(join(root, 'first', 'tensor'), 'x')
    writeFileSync(join(root, 'second', 'tensor'), 'x')
    first.kill('SIGKILL')
    await once(first, 'exit')
    const third = await openAttemptFolder([root], 'third')
    expect(existsSync(join(root, 'first'))).toBe(false)
    expect(readFileSync(join(root, 'second', 'tensor'), 'utf8')).toBe('x')
    expect(readdirSync(root).toSorted()).toEqual(['second', 'second.lock', 'third', 'third.lock'])
    await third.close()
    expect(readdirSync(root).toSorted()).toEqual(['second', 'second.lock'])
    second.kill('SIGKILL')
    await once(second, 'exit')
  }, 30_000)

  it.runIf(canUnshare)(
    'is not removed by a worker that does not see its process',
    async () => {
      const own = await openAttemptFolder([root], 'own')
      writeFileSync(join(own.path, 'tensor'), 'x')
      const other = await holder('other', ['unshare', ...ownProcesses])
      expect(readFileSync(join(own.path, 'tensor'), 'utf8')).toBe('x')
      // And the other way round.
      const third = await openAttemptFolder([root], 'third')
      expect(existsSync(join(root, 'other'))).toBe(true)
      other.kill('SIGKILL')
      await once(other, 'exit')
      await third.close()
      await own.close()
    },
    30_000,
  )

  it('is whole when many workers start at once', async () => {
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => openAttemptFolder([root], `worker-${i}`)))
    expect(all.filter(({ path }) => existsSync(path) && existsSync(`${path}.lock`))).toHaveLength(20)
    await Promise.all(all.map((each) => each.close()))
    expect(readdirSync(root)).toEqual([])
  })

  it('lies where nobody else has put something: a link or an open folder is refused', async () => {
    const victim = join(folder, 'victim')
    mkdirSync(victim)
    writeFileSync(join(victim, 'precious'), 'x')
    symlinkSync(victim, root)
    await expect(openAttemptFolder([root], 'own')).rejects.toBeInstanceOf(BadPlace)
    expect(readdirSync(victim)).toEqual(['precious'])
    rmSync(root)
    mkdirSync(root, { mode: 0o777 })
    await expect(openAttemptFolder([root], 'own')).rejects.toThrow(/has mode 07\d\d, not 0700.*Remove it/)
  })

  it('a link in the place of a lock is not followed', async () => {
    mkdirSync(root, { mode: 0o700 })
    const precious = join(folder, 'precious')
    writeFileSync(precious, 'x')
    symlinkSync(precious, join(root, 'own.lock'))
    await expect(openAttemptFolder([root], 'own')).rejects.toMatchObject({ code: 'ELOOP' })
    expect(readFileSync(precious, 'utf8')).toBe('x')
  })
})
