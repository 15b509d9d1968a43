/** Where process 1 is no init: zombies, signals and exit codes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { interpreter } from '../support/child.ts'
import { canUnshare, ownProcesses } from '../support/containers.ts'

let folder: string
let program: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-init-'))
  program = join(folder, 'program.mjs')
  writeFileSync(
    program,
    `import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { runBelowReaper } from ${JSON.stringify(join(root, 'host', 'init.mjs'))}
const status = await runBelowReaper()
if (status !== undefined) process.exit(status)
const states = () => readdirSync('/proc').filter((pid) => /^\\d+$/.test(pid)).map((pid) => /^State:\\s+(\\w)/m.exec(readFileSync('/proc/' + pid + '/status', 'utf8'))?.[1])
if (process.argv[2] === 'orphans') {
  // Each shell ends at once and leaves an orphan that ends soon after it.
  for (let i = 0; i < 5; i++) spawnSync('sh', ['-c', 'sleep 0.2 &'])
  setTimeout(() => {
    console.log(JSON.stringify({ pid: process.pid, zombies: states().filter((state) => state === 'Z').length }))
    process.exit(3)
  }, 1500)
} else {
  process.on('SIGTERM', () => {
    console.log('asked')
    process.exit(4)
  })
  console.log('ready')
  setInterval(() => {}, 1000)
}
`,
  )
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const env = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '', DARKROOM_PYTHON: interpreter() }

describe.runIf(canUnshare)('as process 1 of a container', () => {
  it.each([
    ['node itself', [process.execPath]],
    ['a shell', ['sh', '-c', '"$@"; exit $?', 'sh', process.execPath]],
  ])('%s: orphans are reaped, and the exit code is the program’s', async (_, first) => {
    const child = spawn('unshare', [...ownProcesses, ...first, program, 'orphans'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.on('data', (text: Buffer) => (out += text.toString()))
    const [code] = (await once(child, 'close')) as [number]
    expect(JSON.parse(out)).toMatchObject({ zombies: 0 })
    expect((JSON.parse(out) as { pid: number }).pid).not.toBe(1)
    expect(code).toBe(3)
  })

  it('a signal to process 1 reaches the program, and nothing is left when that has ended', async () => {
    const child = spawn('unshare', ['--user', '--map-root-user', '--pid', '--fork', '--mount', '--mount-proc', process.execPath, program], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let out = ''
    child.stdout.on('data', (text: Buffer) => (out += text.toString()))
    await once(child.stdout, 'data')
    // `unshare` passes nothing on: its one child is process 1.
    const { readFileSync } = await import('node:fs')
    const first = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim())
    process.kill(first, 'SIGTERM')
    const [code] = (await once(child, 'close')) as [number]
    expect(out).toBe('ready\nasked\n')
    expect(code).toBe(4)
  })
})
