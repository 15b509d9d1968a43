/** The process that hashes a model dies in its middle: nothing half-done is believed, and the next one ends it. */
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { Model } from '../../src/client/index.ts'
import { keys } from '../../src/keys.ts'
import { Hasher, identityFiles, identityOf, pathOf } from '../../src/models/hash.ts'
import { Scanner } from '../../src/models/scanner.ts'
import { startFarm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { writeSparse } from '../support/model-tree.ts'
import { eventually } from '../support/wait.ts'

it('a keeper that is killed while it hashes leaves no hash behind, and the next one finds the right one', async () => {
  await using farm = await startFarm({ workers: 0, settings: { DARKROOM_IDLE_HASH: '0' } })
  const models = join(farm.folder, 'models')
  await writeModel(models, 'large', 'large')
  const part = join(models, 'large/unet/diffusion_pytorch_model.safetensors')
  await writeSparse(part, { unet: [128 * 2 ** 20] })
  const model = async (): Promise<Model | undefined> => {
    const { status, json } = await farm.client.get('/v1/models/large')
    return status === 200 ? (json as Model) : undefined
  }
  // A look may come while it is being written.
  await eventually('it can be used', async () => (await model())?.status === 'usable')
  const [shelf] = await farm.eye.hkeys(keys.shelves())
  if (shelf === undefined) throw new Error('void: no shelf')
  const id = await farm.submit({ model: 'large' })
  await eventually('some of it is hashed', async () => (await farm.eye.hget(keys.shelfHashing(shelf), join(models, 'large'))) !== null)
  const [api] = farm.apis
  if (!api) throw new Error('void: no API')
  await api.kill()
  expect(await farm.eye.hget(keys.shelfHashes(shelf), part)).toBeNull()
  const entry = JSON.parse((await farm.eye.hget(keys.shelfModels(shelf), join(models, 'large'))) ?? '{}') as { identity: unknown }
  expect(entry.identity).toBeNull()
  await api.start()
  const found = await eventually('it is hashed', async () => (await model())?.bodyHash ?? undefined)
  const scanner = new Scanner([models])
  await scanner.scan()
  const scanned = scanner.entries.get(join(models, 'large'))
  if (!scanned) throw new Error('void: it was not found')
  const hasher = new Hasher()
  const files = identityFiles(scanned)
  const hashes = await Promise.all(files.map(async (file) => (await hasher.hash(pathOf(scanned.path, file))).hashes))
  await hasher.close()
  expect(found).toBe(identityOf(true, files, hashes).bodyHash)
  await farm.control(id, 'cancel')
  await farm.until(id, 'cancelled')
})
