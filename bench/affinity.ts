/**
 * `engine.modelLoads`: how often a model is loaded for 100 sessions that draw with one of four, on two workers whose
 * devices hold one each; and `engine.modelLoadRatio`: the same, by what it takes in the order in which they came. Two
 * farms beside one another have the same sessions at the same time, one of them without affinity.
 */
import { join } from 'node:path'
import { productTimes } from '../src/engine/times.ts'
import { startFarm, type Farm } from '../test/support/farm.ts'
import { writeModel } from '../test/support/model.ts'
import { chance } from '../test/support/proxy.ts'
import { eventually } from '../test/support/wait.ts'
import { figure, type Benchmark } from './figure.ts'

const sessions = 100
const models = ['one', 'two', 'three', 'four']
const patienceMs = 300_000

/** A farm with these models; `inARow` 0: sessions begin in their order. */
async function farmOf(inARow: number): Promise<Farm> {
  const farm = await startFarm({
    times: productTimes,
    workers: 0,
    settings: { DARKROOM_MODELS_IN_A_ROW: String(inARow), DARKROOM_MODEL_CACHE: '0' },
    fake: ['--call-ms', '20', '--load-ms', '300', '--heartbeat-ms', '500', '--holds', '1'],
  })
  for (const name of models) await writeModel(join(farm.folder, 'models'), name, name)
  await Promise.all([farm.addWorker(), farm.addWorker()])
  await eventually(
    'all models are known',
    async () => (await farm.client.get('/v1/models?status=usable')).json.total > models.length,
    60_000,
  )
  return farm
}

/** Loads for the same hundred. */
async function loadsOf(farm: Farm): Promise<number> {
  const draw = chance(7)
  const ids: string[] = []
  for (let i = 0; i < sessions; i++) ids.push(await farm.submit({ model: models[Math.floor(draw() * models.length)], seed: i, steps: 10 }))
  for (const id of ids) await farm.until(id, 'succeeded', patienceMs)
  const { days } = (await farm.client.get('/v1/usage?days=2')).json as { days: { sessions: number; cacheMisses: number }[] }
  const ended = days.reduce((sum, day) => sum + day.sessions, 0)
  if (ended !== sessions) throw new Error(`void: ${ended} sessions have ended, not ${sessions}`)
  return days.reduce((sum, day) => sum + day.cacheMisses, 0)
}

export const affinity: Benchmark = {
  figures: ['engine.modelLoads', 'engine.modelLoadRatio'],
  isLong: true,
  async measure(say) {
    await using near = await farmOf(8)
    await using ordered = await farmOf(0)
    const [loads, inOrder] = await Promise.all([loadsOf(near), loadsOf(ordered)])
    say(`${sessions} sessions of ${models.length} models on 2 workers: ${loads} loads, in their order ${inOrder}`)
    return [figure('engine.modelLoads', loads, '', { atMost: 50 }), figure('engine.modelLoadRatio', loads / inOrder, '', { atMost: 0.6 })]
  },
}
