/** What `darkroom doctor` says of model folders: which there are, what draws, and what was not understood. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Finding } from '../../src/cli/doctor.ts'
import { run } from '../support/command.ts'
import { writeSafetensors } from '../support/headers.ts'
import { transformer } from '../support/model-headers.ts'
import { writeModel } from '../support/model.ts'
import { isMarked, writeMarking } from '../support/pickles.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-doctor-'))
  await writeModel(join(folder, 'models'))
  await writeFile(join(folder, 'models', 'half.safetensors'), 'short')
  writeSafetensors(join(folder, 'models', 'lone.safetensors'), transformer.flux1())
  writeMarking(join(folder, 'models', 'stranger.ckpt'), join(folder, 'mark'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

it('names the folders, the models that draw, and what was not understood with a remedy', async () => {
  const models = join(folder, 'models')
  const missing = join(folder, 'nonesuch.yaml')
  const { stdout } = await run(['doctor', '--json'], { DARKROOM_DATA: folder, DARKROOM_MODELS: `${models}:${missing}` })
  const found = (JSON.parse(stdout) as Finding[]).filter(({ what }) => what === 'models')
  expect(found[0]).toMatchObject({ ok: true, is: `darkroom-tiny (sd1) in ${join(models, 'darkroom-tiny')}; searched ${models}` })
  const of = (path: string): Finding | undefined => found.find(({ is }) => is.startsWith(`${path}: `))
  expect(of(join(models, 'lone.safetensors'))).toMatchObject({ ok: null, is: /it lacks .*import-config FOLDER/ })
  expect(of(join(models, 'half.safetensors'))).toMatchObject({ ok: null, is: /It ends after 5 bytes/, remedy: /fetch/i })
  expect(of(join(models, 'stranger.ckpt'))).toMatchObject({ ok: null, is: /pickle/, remedy: /safetensors/ })
  expect(isMarked(join(folder, 'mark'))).toBe(false)
})
