import { describe, expect, it } from 'vitest'
import { devicesOf, type Card } from '../src/cards.ts'
import { readConfig } from '../src/config.ts'

const uuid = (n: number): string => `0000000${n}-1111-2222-3333-444444444444`
const card = (n: number): Card => ({ uuid: uuid(n), name: `Card ${n}` })
const cards =
  (...numbers: number[]) =>
  () =>
    Promise.resolve(numbers.map(card))
const unasked = () => Promise.reject(new Error('asked without need'))

describe('the device of each worker', () => {
  it('is a card of its own, by its UUID, in the order of the list', async () => {
    const devices = await devicesOf('cuda', 2, cards(3, 1, 2))
    expect(devices).toEqual([`cuda:${uuid(3)}`, `cuda:${uuid(1)}`])
    for (const device of devices) expect(readConfig({ HOME: '/h', DARKROOM_DEVICE: device }).device).toBe(device)
  })

  it('is what the user chose, of one worker and on the CPU, without a question to Python', async () => {
    expect(await devicesOf('cuda:1', 1, unasked)).toEqual(['cuda:1'])
    expect(await devicesOf('cuda', 1, unasked)).toEqual(['cuda'])
    expect(await devicesOf('cuda', 0, unasked)).toEqual([])
    expect(await devicesOf('cpu', 3, unasked)).toEqual(['cpu', 'cpu', 'cpu'])
  })

  it('is refused for more workers than cards, also where a card is listed twice or one card was chosen', async () => {
    const refused = (message: RegExp) => ({
      code: 'config.invalid',
      field: 'DARKROOM_WORKERS',
      message: expect.stringMatching(message) as string,
    })
    await expect(devicesOf('cuda', 2, cards(1))).rejects.toMatchObject(refused(/^2 workers on 1 GPU \(Card 1\)/))
    await expect(devicesOf('cuda', 2, cards(1, 1))).rejects.toMatchObject(refused(/^2 workers on 1 GPU/))
    await expect(devicesOf('cuda', 2, cards())).rejects.toMatchObject(refused(/no GPU that torch can use/))
    await expect(devicesOf('cuda:0', 2, unasked)).rejects.toMatchObject(refused(/DARKROOM_DEVICE=cuda:0/))
  })
})
