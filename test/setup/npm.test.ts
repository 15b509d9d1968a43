import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { isInstalled } from '../../host/places.mjs'
import { onPath } from '../../host/programs.mjs'
import { Sandbox, type Running } from './sandbox.ts'

const count = 20

let sandbox: Sandbox
/** A project whose packages are archives beside it: npm fetches them without a registry. */
let project: string

beforeAll(async () => {
  sandbox = await Sandbox.make()
  project = join(sandbox.folder, 'project')
  const source = join(sandbox.folder, 'source')
  mkdirSync(project)
  const names = Array.from({ length: count }, (_, i) => `package-${i}`)
  for (const name of names) {
    mkdirSync(join(source, name), { recursive: true })
    writeFileSync(join(source, name, 'package.json'), JSON.stringify({ name, version: '1.0.0' }))
    writeFileSync(join(source, name, 'index.js'), `module.exports = '${name}'\n`.repeat(20_000))
  }
  const tar = spawnSync('npm', ['pack', '--pack-destination', project, ...names.map((name) => join(source, name))], { encoding: 'utf8' })
  expect(tar.status, tar.stderr).toBe(0)
  const dependencies = Object.fromEntries(names.map((name) => [name, `file:${name}-1.0.0.tgz`]))
  const locked = names.map((name) => {
    const archive = readFileSync(join(project, `${name}-1.0.0.tgz`))
    const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`
    return [`node_modules/${name}`, { version: '1.0.0', resolved: `file:${name}-1.0.0.tgz`, integrity }]
  })
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'project', version: '1.0.0', dependencies }))
  const packages = { '': { name: 'project', version: '1.0.0', dependencies }, ...Object.fromEntries(locked) }
  writeFileSync(join(project, 'package-lock.json'), JSON.stringify({ name: 'project', version: '1.0.0', lockfileVersion: 3, packages }))
}, 60_000)
afterAll(() => sandbox[Symbol.dispose]())

const install = (): Running => {
  const [npm = ''] = onPath('npm')
  const env = { ...sandbox.env(), PATH: `${join(npm, '..')}:${process.env['PATH'] ?? ''}` }
  return sandbox.start('test/setup/set-up.mjs', [JSON.stringify({ packages: project })], env)
}

const wholePackages = (): number =>
  Array.from({ length: count }, (_, i) => join(project, 'node_modules', `package-${i}`, 'index.js')).filter(
    (file) => existsSync(file) && statSync(file).size > 400_000,
  ).length

it('npm packages: killed again and again and then let be, they end whole', async () => {
  expect(isInstalled(project)).toBe(false)
  let kills = 0
  for (let ms = 150; ; ms += 150) {
    const running = install()
    const end = await Promise.race([running.ended, delay(ms)])
    if (end) break
    running.process.kill('SIGKILL')
    await running.ended
    kills++
    await vi.waitUntil(() => sandbox.processes().length === 0, { timeout: 5000, interval: 10 })
    // Whatever it left, it is whole or it is not believed.
    if (isInstalled(project)) expect(wholePackages()).toBe(count)
  }
  expect(kills).toBeGreaterThan(1)
  expect(isInstalled(project)).toBe(true)
  expect(wholePackages()).toBe(count)
  rmSync(join(project, 'node_modules', 'package-7'), { recursive: true })
  expect(isInstalled(project)).toBe(false)
}, 60_000)

it('npm packages: of two set-ups one fetches and the other waits; a third finds nothing to do', async () => {
  rmSync(join(project, 'node_modules'), { recursive: true, force: true })
  const ends = await Promise.all([install().ended, install().ended])
  expect(ends.map(({ code }) => code)).toEqual([0, 0])
  const words = ends.map(({ stderr }) => stderr).join('')
  expect(words.match(/Fetching the npm packages: 110 MB \(210 MB on disk\) into node_modules/g)).toHaveLength(1)
  expect(words).toMatch(/Another set-up \(pid \d+\) is fetching the npm packages/)
  expect(await install().ended).toMatchObject({ code: 0, stderr: '' })
})

it('npm packages: what npm refuses is shown in its own words', async () => {
  rmSync(join(project, 'node_modules'), { recursive: true, force: true })
  rmSync(join(sandbox.folder, 'user', '.npm'), { recursive: true })
  writeFileSync(join(project, 'package-3-1.0.0.tgz'), 'another archive')
  const { code, stderr } = await install().ended
  expect(code).toBe(1)
  expect(stderr).toMatch(/npm could not install the packages\. .*It said:\n.*(EINTEGRITY|TAR_BAD_ARCHIVE|integrity)/s)
  expect(isInstalled(project)).toBe(false)
})
