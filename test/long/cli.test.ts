/** The commands that are clients of the API, as processes, on a farm with the fake child. */
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { sha256Of } from '../../src/artifacts/store.ts'
import { run, start, type Ended } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'

/** Names of models as people give them; `1.5` and `true` are JSON as well. */
const oddNames = ['style, v1:2 (b)=final', '1.5', 'true']

let farm: Farm
let folder: string
let env: Record<string, string>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-cli-'))
  const models = join(folder, 'models')
  await writeModel(models)
  for (const name of oddNames) await cp(join(models, 'darkroom-tiny'), join(models, name), { recursive: true })
  farm = await startFarm({ workers: 1, fake: ['--call-ms', '100'], settings: { DARKROOM_MODELS: models } })
  env = { DARKROOM_URL: farm.client.url, DARKROOM_DATA: folder }
})
afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
  await farm[Symbol.asyncDispose]()
})

const darkroom = (...args: string[]): Promise<Ended> => run(args, env)
const json = async <T>(...args: string[]): Promise<T> => {
  const { code, stdout, stderr } = await darkroom(...args, '--json')
  expect(stderr).toBe('')
  expect(code).toBe(0)
  return JSON.parse(stdout) as T
}

describe('generate', () => {
  it('saves the picture and says where; progress goes to stderr', async () => {
    const { code, stdout, stderr } = await darkroom('generate', 'a', 'red', 'circle', '--seed', '7', '--out', folder)
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringMatching(/^session \S+\n/) as string })
    const path = /^saved (.*)\n$/.exec(stdout)?.[1] ?? ''
    expect(path).toMatch(/darkroom-7-[0-9a-f]{8}\.png$/)
    expect((await readFile(path)).subarray(1, 4).toString()).toBe('PNG')
    expect(stderr).toMatch(/ % {2}.*denoise/)
  })

  it('numbers several pictures of one file name', async () => {
    const out = join(folder, 'two.png')
    const options = '--count 2 --seed 3 --steps 4 --size 64x128'.split(' ')
    const { files, output, input } = await json<Session & { files: string[] }>(
      'generate',
      'two',
      ...options,
      '--sampler',
      'Euler a',
      '--out',
      out,
    )
    expect(files).toEqual([1, 2].map((n) => join(folder, `two-${n}.png`)))
    expect(input).toMatchObject({ sampler: 'Euler a', steps: 4, width: 64, height: 128 })
    for (const [i, file] of files.entries()) expect(sha256Of(await readFile(file))).toBe(output?.images?.[i]?.sha256)
  })

  it('saves it also when nobody reads what it prints, as with `| head`', async () => {
    const out = join(folder, 'unread')
    const { process: command, ended } = start(['generate', 'unread', '--seed', '9', '--steps', '4', '--out', out], env)
    command.stdout?.destroy()
    command.stderr?.destroy()
    expect((await ended).code).toBe(0)
    expect(await readdir(out)).toEqual([expect.stringMatching(/^darkroom-9-[0-9a-f]{8}\.png$/)])
  })

  it('takes a model of any name, and seeds up to 2^53 - 1', async () => {
    const seed = '9007199254740991'
    for (const model of oddNames) {
      const out = join(folder, 'odd')
      const drawn = await json<Session & { files: string[] }>(
        'generate',
        'odd',
        '--model',
        model,
        '--steps',
        '2',
        '--seed',
        seed,
        '--out',
        out,
      )
      expect(drawn.input['model']).toBe(model)
      const [file = ''] = drawn.files
      expect(file).toContain(`darkroom-${seed}-`)
      expect((await readFile(file)).toString('latin1')).toContain(`Seed: ${seed}`)
      const run = await json<{ images: { seed: number }[] }>(
        'run',
        'image-generation',
        'prompt=7',
        `model=${model}`,
        'steps=2',
        `seed=${seed}`,
      )
      expect(run.images[0]?.seed).toBe(Number(seed))
    }
    expect((await darkroom('generate', 'x', '--seed', '9007199254740992')).code).toBe(2)
  })

  it('repeats what the API refuses, field by field, and leaves nothing', async () => {
    const before = await json<{ sessions: unknown[] }>('sessions')
    const { code, stderr } = await darkroom('generate', 'x', '--size', '65x64', '--sampler', 'Nonesuch')
    expect(code).toBe(1)
    expect(stderr).toMatch(/input\.width.*multiple of 8/)
    expect(stderr).toMatch(/input\.sampler/)
    expect(stderr.match(/multiple of 8/g)).toHaveLength(1)
    expect((await json<{ sessions: unknown[] }>('sessions')).sessions).toHaveLength(before.sessions.length)
  })

  it('detaches, and Ctrl-C on a follower leaves the session alone', async () => {
    const { stdout } = await darkroom('generate', 'slowly', '--steps', '200', '--detach')
    const id = stdout.trim()
    const follower = start(['show', id, '--follow'], env)
    await follower.until(/denoise/)
    follower.process.kill('SIGINT')
    const end = await follower.ended
    expect(end.code).toBe(130)
    expect(end.stderr).toContain(`darkroom cancel ${id}`)
    expect((await farm.get(id)).status).toBe('running')
    expect(await darkroom('cancel', id)).toMatchObject({ code: 0, stdout: `${id} cancelled\n` })
  })
})

describe('control', () => {
  it('pauses, resumes, cancels, retries', async () => {
    const id = (await darkroom('generate', 'to be paused', '--steps', '200', '--tag', 'control', '--detach')).stdout.trim()
    await farm.untilCall(id, 2)
    expect((await darkroom('pause', id)).stdout).toMatch(/ (pausing|paused)\n$/)
    await farm.until(id, 'paused')
    expect((await json<Session>('resume', id)).status).toBe('running')
    await darkroom('cancel', id)
    const refused = await darkroom('pause', id)
    expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('session.ended') as string })
    const again = await json<Session>('retry', id)
    expect(again.retryOf).toBe(id)
    expect((await json<{ sessions: Session[] }>('sessions', '--tag', 'control')).sessions.map((session) => session.id)).toEqual([
      again.id,
      id,
    ])
    expect((await darkroom('sessions', '--status', 'cancelled')).stdout).toContain(id)
    await darkroom('cancel', again.id)
  })

  it('shows a session with its receipt', async () => {
    const { id } = await json<Session>('generate', 'shown', '--steps', '3', '--out', folder)
    const { stdout } = await darkroom('show', id, '--receipt')
    for (const part of [id, 'succeeded', 'shown', '/v1/artifacts/', 'inference.denoise', farm.workers[0]?.ready ?? ''])
      expect(stdout).toContain(part)
  })

  it('says that a session does not exist', async () => {
    const { code, stderr } = await darkroom('show', '0-00000000000000000000000000')
    expect(code).toBe(1)
    expect(stderr).toMatch(/error: there is no session .*\n.*\n\(session\.unknown, request /)
  })
})

describe('run', () => {
  it('runs any workflow by its name and prints its output as JSON', async () => {
    const made = await json<{ id: string; bytes: number }>('run', 'memory-allocate', 'bytes=4096', 'kind=upload')
    expect(made).toMatchObject({ bytes: 4096, kind: 'upload' })
    expect(await json('run', 'memory-release', `id=${made.id}`)).toEqual({ id: made.id, bytes: 4096 })
  })

  it('repeats what the API refuses, and what the session failed of', async () => {
    const { code, stderr } = await darkroom('run', 'memory-allocate', 'bytes=none')
    expect(code).toBe(1)
    expect(stderr).toMatch(/input\.bytes/)
    expect((await darkroom('run', 'no-such-workflow')).stderr).toMatch(/there is no workflow no-such-workflow/)
  })
})

describe('used wrongly', () => {
  it.each([
    [[], /Usage: darkroom/],
    [['draw'], /unknown command 'draw'/],
    [['generate'], /missing required argument 'prompt'/],
    [['generate', 'x', '--steps', 'many'], /must be a whole number from 1 to 200/],
    [['generate', 'x', '--size', 'big'], /must be like 128x192/],
    [['run', 'memory-allocate', 'bytes'], /must be like steps=20/],
    [['sessions', '--status', 'lost'], /Allowed choices are queued, running/],
  ])('%j says what it takes', async (args, words) => {
    const { code, stdout, stderr } = await darkroom(...args)
    expect(code).toBe(2)
    expect(stdout + stderr).toMatch(words)
  })

  it('says at once that nobody answers, and what to do', async () => {
    const { code, stderr } = await run(['sessions'], { DARKROOM_URL: 'http://127.0.0.1:9', DARKROOM_DATA: folder })
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(/no answer from .*\n.*npm start/) as string })
  })

  it('names every setting at fault', async () => {
    const { code, stderr } = await run(['sessions'], { DARKROOM_PORT: 'x', DARKROOM_THREEDS: '2' })
    expect(code).toBe(1)
    expect(stderr).toMatch(/DARKROOM_THREEDS: there is no such setting/)
    expect(stderr).toMatch(/DARKROOM_PORT/)
  })
})

describe('keys', () => {
  it('are made once, listed without secrets, revoked; a farm that does not run is no hindrance', async () => {
    const own = { DARKROOM_DATA: join(folder, 'keys') }
    const added = await run(['keys', 'add', 'studio', '--scope', 'read', 'submit'], own)
    expect(added.code).toBe(0)
    const key = added.stdout.trim()
    expect(key).toMatch(/^dk_[0-9a-f]{8}_[\w-]{43}$/)
    const listed = await run(['keys', 'list'], own)
    expect(listed.stdout).toMatch(/submit,read .* studio/)
    expect(listed.stdout).not.toContain(key.slice(12))
    const id = key.slice(3, 11)
    expect((await run(['keys', 'open'], own)).stderr).toMatch(new RegExp(`there are keys: ${id} \\(studio\\)`))
    const revoked = await run(['keys', 'revoke', id], own)
    expect(revoked.code).toBe(0)
    expect(revoked.stdout).toMatch(/the farm is closed.*keys add.*keys open/)
    expect((await run(['keys', 'revoke', id], own)).stderr).toContain('key.unknown')
    expect((await run(['keys', 'list'], own)).stdout).toMatch(/^no keys, and the farm is closed/)
    expect((await run(['keys', 'open'], own)).stdout).toMatch(/every user of this machine may do everything/)
    expect((await run(['keys', 'list'], own)).stdout).toMatch(/^no keys, and the farm is open/)
    expect((await run(['keys', 'add', 'x', '--scope', 'everything'], own)).code).toBe(2)
  })
})

describe('doctor', () => {
  it('says what runs and what is missing, and creates nothing', async () => {
    const missing = join(folder, 'not', 'there')
    const { code, stdout } = await run(['doctor', '--json'], { DARKROOM_DATA: missing, DARKROOM_MODELS: missing })
    expect(code).toBe(1)
    const findings = JSON.parse(stdout) as { what: string; ok: boolean | null; remedy?: string }[]
    expect(findings.filter(({ ok }) => ok === false).map(({ what }) => what)).toEqual(['models'])
    expect(findings.map(({ what }) => what)).toEqual([
      'node',
      'packages',
      'python',
      'native',
      'device',
      'redis',
      'data',
      'models',
      'running',
    ])
    expect(existsSync(missing)).toBe(false)
  })

  it('finds the API and its worker', async () => {
    const { stdout } = await run(['doctor'], env)
    expect(stdout).toContain(`${farm.workers[0]?.ready} (cpu, ready, no spare child`)
  })
})

describe('devices and memory', () => {
  it('are shown in words and bars, without colour and without a terminal', async () => {
    const [{ id }] = await json<[{ id: string }]>('devices')
    const list = await darkroom('devices')
    expect(list.stdout).toMatch(new RegExp(`^DEVICE .*\\n${id} +cpu:0 +online `))
    expect((await darkroom('devices', 'cpu:0')).stdout).toMatch(/^temperature +unknown$/m)
    const { stdout } = await darkroom('memory')
    expect(stdout).toMatch(/^ {2}\[[█▒·]{60}\]$/m)
    expect(stdout).toMatch(/^ {2}used [\d.]+ GiB {2}evictable [\d.]+ GiB {2}free [\d.]+ GiB$/m)
    expect(stdout).not.toContain('\u001b')
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
  })

  it('can be worked on: a default, an allocation, a copy, and all of it gone again', async () => {
    const chosen = await json<{ device: string }>('devices', 'default', 'cpu:0')
    expect((await json<Session>('generate', 'a circle', '--seed', '5', '--out', folder)).device).toBe(chosen.device)
    const made = await json<{ id: string; bytes: number }>('memory', 'allocate', '1.5MiB', '--kind', 'upload')
    expect(made.bytes).toBe(1.5 * 2 ** 20)
    const other = (await darkroom('memory', 'allocate', '1MiB')).stdout.trim()
    const copied = await darkroom('memory', 'copy', made.id, other, '--from-at', '512KiB', '--verify')
    expect(copied.stdout).toMatch(/^copied 1 MiB.*CRC-32 [0-9a-f]{8} on both sides\n$/)
    expect((await darkroom('memory', 'release', made.id, other)).stdout.match(/^released /gm)).toHaveLength(2)
    const again = await darkroom('memory', 'release', made.id)
    expect({ code: again.code, stderr: again.stderr }).toEqual({ code: 1, stderr: expect.stringContaining('(memory.unknown') as string })
    expect((await darkroom('devices', 'default', 'any')).stdout).toBe('any device\n')
    expect((await darkroom('memory', 'allocate', '-1')).code).toBe(2)
  })
})
