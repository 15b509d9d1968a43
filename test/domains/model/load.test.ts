import { afterAll, beforeAll, expect, it } from 'vitest'
import { DarkroomClient } from '../../../src/client/index.ts'
import { run } from '../../support/command.ts'
import { startFarm, type Farm } from '../../support/farm.ts'
import { eventually } from '../../support/wait.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 1, fake: ['--heartbeat-ms', '100'] })
})
afterAll(() => farm[Symbol.asyncDispose]())

const resident = async (): Promise<string[]> => {
  const { devices } = (await farm.client.get('/v1/memory/models')).json as { devices: { models: { id: string }[] }[] }
  return devices.flatMap(({ models }) => models.map(({ id }) => id))
}

it('makes a model resident, by its route, the client and the command line', async () => {
  expect(await resident()).toEqual([])
  const byRoute = await farm.client.post('/v1/models/darkroom-tiny/load', undefined, { Prefer: 'wait=20' })
  expect(byRoute).toMatchObject({ status: 200, json: { id: 'darkroom-tiny', wasResident: false, ramBytes: 0 } })
  expect((byRoute.json as { diskBytes: number }).diskBytes).toBeGreaterThan(0)
  const again = { ...byRoute.json, wasResident: true, seconds: 0, ramBytes: 0, diskBytes: 0, gbPerS: null }
  const client = new DarkroomClient({ url: farm.client.url })
  expect(await client.run('model-load', { model: 'darkroom-tiny' })).toEqual(again)
  const { code, stdout } = await run(['run', 'model-load', 'model=darkroom-tiny'], { DARKROOM_URL: farm.client.url })
  expect({ code, output: JSON.parse(stdout) as unknown }).toEqual({ code: 0, output: again })
  await eventually('it is resident', async () => (await resident()).join() === 'darkroom-tiny')
})

it('refuses a model that is not there, and leaves nothing', async () => {
  const { status, json } = await farm.client.post('/v1/models/nonesuch/load', undefined, { Prefer: 'wait=20' })
  expect({ status, json }).toMatchObject({
    status: 422,
    json: { code: 'model.unknown', detail: expect.stringMatching(/darkroom-tiny/) as string },
  })
})
