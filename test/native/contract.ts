/**
 * What `DeviceMemory` promises, whatever is beneath. Each scenario opens a memory, and throws when a promise is not
 * kept. They run in the test's own process or, for a backend that needs another environment, in one of their own
 * (contract_process.ts).
 */
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import type { DeviceMemory } from '../../src/domains/device-memory.ts'
import { DarkroomError } from '../../src/errors.ts'

export type Scenario = (open: () => Promise<DeviceMemory>) => Promise<void>

const mib = 1 << 20

function pattern(size: number, salt: number): Uint8Array {
  const bytes = new Uint8Array(size)
  let state = Math.imul(salt, 2654435761) + 1
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    bytes[i] = state >>> 24
  }
  return bytes
}

async function refused(code: string, call: () => unknown, field?: string): Promise<void> {
  await assert.rejects(
    async () => call(),
    (error: unknown) => {
      assert.ok(error instanceof DarkroomError, String(error))
      assert.equal(error.code, code, error.message)
      assert.ok(error.message.length > 10 && error.remedy.length > 10)
      if (field !== undefined) assert.equal(error.field, field)
      return true
    },
  )
}

function expectNothingHeld(memory: DeviceMemory): void {
  for (const device of memory.devices().keys()) {
    const { live, tracked, pinned, arenas, created, released } = memory.usage(device)
    assert.deepEqual({ live, tracked, pinned, arenas }, { live: 0, tracked: 0, pinned: 0, arenas: 0 })
    assert.equal(created, released)
  }
  assert.deepEqual(memory.list(), [])
}

export const contract: Record<string, Scenario> = {
  async 'describes its devices, with null for what nobody knows'(open) {
    await using memory = await open()
    assert.ok(memory.devices().length > 0)
    for (const [index, device] of memory.devices().entries()) {
      assert.ok(device.key && device.name && device.backend === memory.backend)
      const figures = await memory.figures(index)
      for (const figure of [figures.total, figures.budget]) assert.ok(figure === null || figure > 0)
      assert.ok(figures.used === null || figures.used >= 0)
      assert.ok(figures.source)
      const { source, ...vitals } = await memory.vitals(index)
      assert.ok(source)
      for (const value of Object.values(vitals)) assert.ok(value === null || Number.isFinite(value))
    }
  },

  async 'refuses every bad argument by its field, and holds nothing for it'(open) {
    await using memory = await open()
    const owner = 'test'
    const wrong: unknown[] = [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1.5, 2 ** 60, '8', null, undefined, {}, 10n]
    for (const bytes of wrong) await refused('memory.invalid', () => memory.allocate({ owner, bytes: bytes as number }), 'bytes')
    for (const timeToLiveMs of [0, -5, Number.NaN, 0.5])
      await refused('memory.invalid', () => memory.allocate({ owner, bytes: 8, timeToLiveMs }), 'timeToLiveMs')
    await refused('memory.invalid', () => memory.allocate({ owner: '', bytes: 8 }), 'owner')
    await refused('memory.invalid', () => memory.allocate({ owner: 7 as unknown as string, bytes: 8 }), 'owner')
    await refused('memory.invalid', () => memory.allocate({ owner, bytes: 8, kind: 'tape' as 'device' }), 'kind')
    await refused('memory.invalid', () => memory.allocate({ owner, bytes: 8, placement: 'anywhere' as 'placed' }), 'placement')
    await refused('memory.invalid', () => memory.allocate({ owner, bytes: 8, kind: 'upload', placement: 'placed' }), 'placement')
    for (const device of [99, -1, Number.NaN, 0.5]) {
      await refused('memory.invalid', () => memory.allocate({ owner, bytes: 8, device }))
      await refused('memory.invalid', () => memory.figures(device))
      await refused('memory.invalid', () => memory.usage(device))
      await refused('memory.invalid', () => memory.setLimit(device, 1))
      await refused('memory.invalid', () => memory.defragment(device))
    }
    await refused('memory.invalid', () => memory.setLimit(0, -1), 'limit')
    await refused('memory.invalid', () => memory.defragment(0, { maxBytes: Number.NaN }), 'maxBytes')

    const { id } = await memory.allocate({ owner, bytes: 1000 })
    const bytes = new Uint8Array(1000)
    for (const unknown of [0, 12_345, 2 ** 50]) {
      await refused('memory.unknown', () => memory.release(unknown))
      await refused('memory.unknown', () => memory.inspect(unknown))
      await refused('memory.unknown', () => memory.renew(unknown, 1000))
      await refused('memory.unknown', () => memory.write(unknown, bytes))
      await refused('memory.unknown', () => memory.read(unknown, bytes))
      await refused('memory.unknown', () => memory.copy({ from: id, to: unknown, bytes: 1 }))
      await refused('memory.unknown', () => memory.copy({ from: unknown, to: id, bytes: 1 }))
      await refused('memory.unknown', () => memory.checksum(unknown, { bytes: 1 }))
    }
    for (const odd of [-1, Number.NaN, 1.5, '1']) {
      await refused('memory.invalid', () => memory.release(odd as number))
      await refused('memory.invalid', () => memory.write(id, bytes, { at: odd as number }))
      await refused('memory.invalid', () => memory.copy({ from: id, to: id, bytes: odd as number }))
      await refused('memory.invalid', () => memory.checksum(id, { bytes: odd as number }))
    }
    await refused('memory.invalid', () => memory.write(id, new Uint8Array(0)))
    await refused('memory.invalid', () => memory.write(id, [1, 2, 3] as unknown as Uint8Array))
    await refused('memory.invalid', () => memory.read(id, new Uint8Array(new SharedArrayBuffer(8))))
    await refused('memory.invalid', () => memory.copy({ from: id, to: id, bytes: 0 }))
    await refused('memory.out_of_range', () => memory.write(id, bytes, { at: 1 }))
    await refused('memory.out_of_range', () => memory.write(id, bytes, { at: Number.MAX_SAFE_INTEGER }))
    await refused('memory.out_of_range', () => memory.read(id, bytes.subarray(1), { at: 2 }))
    await refused('memory.out_of_range', () => memory.copy({ from: id, to: id, at: 10, bytes: 20 }))
    await refused('memory.out_of_range', () => memory.checksum(id, { bytes: 1001 }))
    await memory.release(id)
    await refused('memory.unknown', () => memory.release(id))
    await refused('memory.unknown', () => memory.read(id, bytes))
    expectNothingHeld(memory)
  },

  async 'never shows the bytes of its last owner'(open) {
    await using memory = await open()
    const ways = [
      { kind: 'device', placement: 'automatic' },
      { kind: 'device', placement: 'committed' },
      { kind: 'upload', placement: 'automatic' },
      { kind: 'readback', placement: 'automatic' },
      ...(memory.implementation === 'addon' ? [{ kind: 'device', placement: 'placed' } as const] : []),
    ] as const
    for (const way of ways)
      for (const bytes of [1, 70_001, mib + 5]) {
        const first = await memory.allocate({ ...way, owner: 'first', bytes })
        await memory.write(first.id, pattern(bytes, 7).fill(0xab, 0, 1))
        await memory.releaseOwner('first')
        const next = await memory.allocate({ ...way, owner: 'next', bytes })
        const seen = pattern(bytes, 8)
        await memory.read(next.id, seen)
        assert.ok(Buffer.from(seen).equals(Buffer.alloc(bytes)), `${way.kind} ${way.placement} of ${bytes} bytes`)
        await memory.release(next.id)
      }
    expectNothingHeld(memory)
  },

  async 'copies every byte, and no other'(open) {
    await using memory = await open()
    for (const size of [1, 4097, 3 * mib + 1, 33 * mib + 5]) {
      const bytes = pattern(size, size)
      for (const kind of ['device', 'upload', 'readback'] as const) {
        await using source = await memory.allocate({ owner: 'test', bytes: size, kind })
        await using target = await memory.allocate({ owner: 'test', bytes: size + 2 })
        await memory.write(source.id, bytes)
        await memory.write(target.id, new Uint8Array(size + 2).fill(7))
        await memory.copy({ from: source.id, to: target.id, at: 1, bytes: size }, { verify: true })
        const back = new Uint8Array(size + 2)
        await memory.read(target.id, back, { verify: true })
        assert.ok(back[0] === 7 && back[size + 1] === 7)
        assert.equal(Buffer.compare(back.subarray(1, size + 1), bytes), 0)
        assert.equal(await memory.checksum(target.id, { at: 1, bytes: size }), crc32(bytes))
      }
    }
    // A view into the middle of a larger buffer.
    await using small = await memory.allocate({ owner: 'test', bytes: 100 })
    const around = pattern(300, 3)
    await memory.write(small.id, around.subarray(50, 150), { verify: true })
    const into = new Uint8Array(300)
    await memory.read(small.id, into.subarray(100, 200))
    assert.equal(Buffer.compare(into.subarray(100, 200), around.subarray(50, 150)), 0)
    assert.ok(into.subarray(0, 100).every((byte) => byte === 0) && into.subarray(200).every((byte) => byte === 0))
  },

  async 'tells progress, lets the event loop run, and stops when it is told'(open) {
    await using memory = await open()
    const size = 96 * mib
    await using held = await memory.allocate({ owner: 'test', bytes: size })
    const bytes = new Uint8Array(size).fill(3)
    let turns = 0
    const beat = setInterval(() => turns++, 1)
    let last = 0
    await memory.write(held.id, bytes, {
      onProgress(done, total) {
        assert.ok(done > last && total === size)
        last = done
      },
    })
    clearInterval(beat)
    assert.equal(last, size)
    assert.ok(turns > 0, 'the event loop stood still')

    await refused('memory.cancelled', () => memory.write(held.id, bytes, { signal: AbortSignal.abort() }))
    const stop = new AbortController()
    const copy = memory.write(held.id, bytes, { signal: stop.signal })
    stop.abort()
    await refused('memory.cancelled', () => copy)
    // An exception of the caller's ends the copy and comes out of it.
    await assert.rejects(
      memory.write(held.id, bytes, {
        onProgress() {
          throw new RangeError('mine')
        },
      }),
      /mine/,
    )
    await memory.write(held.id, bytes)
    assert.equal(await memory.checksum(held.id, { bytes: size }), crc32(bytes))
  },

  async 'refuses what passes the limit or the capacity, and goes on'(open) {
    await using memory = await open()
    await refused('memory.exhausted', () => memory.allocate({ owner: 'test', bytes: 2 ** 50 }))
    memory.setLimit(0, 10 * mib)
    await using one = await memory.allocate({ owner: 'test', bytes: 6 * mib })
    await refused('memory.exhausted', () => memory.allocate({ owner: 'test', bytes: 6 * mib }))
    memory.setLimit(0, null)
    await using two = await memory.allocate({ owner: 'test', bytes: 6 * mib })
    assert.ok(one.id !== two.id && memory.usage(0).peak >= 12 * mib && memory.usage(0).limit === null)
  },

  async 'releases by owner, by time, and at the end of a block'(open) {
    const memory = await open()
    let inside
    {
      await using held = await memory.allocate({ owner: 'block', bytes: 70_000 })
      inside = held.id
      await memory.release(held.id) // an early release is not undone twice
    }
    await refused('memory.unknown', () => memory.inspect(inside))
    for (const owner of ['a', 'a', 'b']) await memory.allocate({ owner, bytes: 100_000 })
    const { id } = await memory.allocate({ owner: 'c', bytes: 100, timeToLiveMs: 20 })
    const renewed = await memory.allocate({ owner: 'c', bytes: 100, timeToLiveMs: 20 })
    memory.renew(renewed.id, 3_600_000)
    const timeLeftMs = memory.inspect(renewed.id).timeLeftMs
    assert.ok(timeLeftMs !== null && timeLeftMs > 3_000_000)
    await pause(30)
    assert.deepEqual(
      (await memory.expire()).map((gone) => gone.id),
      [id],
    )
    assert.equal(memory.usage(0).expired, 1)
    assert.equal((await memory.releaseOwner('a')).length, 2)
    assert.equal((await memory.releaseOwner('a')).length, 0)
    assert.equal((await memory.releaseOwner('b')).length, 1)
    memory.renew(renewed.id, null)
    assert.equal(memory.inspect(renewed.id).timeLeftMs, null)
    await memory.releaseOwner('c')
    expectNothingHeld(memory)
    await memory.close()
  },

  async 'keeps ids and bytes when it defragments'(open) {
    await using memory = await open()
    const held = []
    for (let i = 0; i < 40; i++) {
      const bytes = pattern(2 * mib, i)
      const { id } = await memory.allocate({ owner: 'test', bytes: bytes.length })
      await memory.write(id, bytes)
      held.push({ id, bytes })
    }
    for (const [index, { id }] of held.entries()) if (index % 3 !== 0) await memory.release(id)
    const before = memory.usage(0)
    const result = await memory.defragment(0)
    const after = memory.usage(0)
    assert.ok(after.fragmentation <= before.fragmentation && after.arenas <= before.arenas)
    assert.equal(result.arenasFreed, before.arenas - after.arenas)
    if (memory.implementation === 'addon') assert.ok(result.moves > 0 && result.arenasFreed > 0)
    if (memory.backend === 'cuda') assert.equal(result.bytesCopied, 0)
    for (const { id, bytes } of held.filter((_, index) => index % 3 === 0)) {
      const back = new Uint8Array(bytes.length)
      await memory.read(id, back)
      assert.equal(Buffer.compare(back, bytes), 0)
    }
    await memory.releaseOwner('test')
    await memory.trim(0)
    expectNothingHeld(memory)
    assert.equal(memory.usage(0).reserved, 0)
  },

  async 'finishes a copy on what was released meanwhile'(open) {
    await using memory = await open()
    const bytes = pattern(64 * mib, 1)
    const { id } = await memory.allocate({ owner: 'test', bytes: bytes.length })
    // It may be refused before the release is answered, so somebody has to listen from the first moment.
    const copy = memory.write(id, bytes).catch((error: unknown) => assert.equal((error as DarkroomError).code, 'memory.unknown'))
    await memory.release(id)
    await refused('memory.unknown', () => memory.inspect(id))
    await copy
    expectNothingHeld(memory)
  },

  async 'reports what was left behind, and refuses everything afterwards'(open) {
    const memory = await open()
    const { id } = await memory.allocate({ owner: 'forgetful', bytes: 5 * mib })
    const copies = Promise.allSettled([memory.write(id, new Uint8Array(5 * mib)), memory.checksum(id, { bytes: 5 * mib })])
    const leaks = await memory.close()
    assert.deepEqual(
      leaks.map(({ owner, bytes }) => ({ owner, bytes })),
      [{ owner: 'forgetful', bytes: 5 * mib }],
    )
    for (const { status, ...rest } of await copies)
      if (status === 'rejected') assert.match((rest as { reason: DarkroomError }).reason.code, /^memory\.(cancelled|closed)$/)
    assert.deepEqual(await memory.close(), [])
    await refused('memory.closed', () => memory.allocate({ owner: 'late', bytes: 8 }))
    await refused('memory.closed', () => memory.release(id))
    await refused('memory.closed', () => memory.write(id, new Uint8Array(8)))
    await refused('memory.closed', () => memory.expire())
    await refused('memory.closed', () => memory.figures(0))
  },

  async 'does many things at once'(open) {
    await using memory = await open()
    const devices = memory.devices().length
    await Promise.all(
      Array.from({ length: 24 }, async (_, lane) => {
        for (let round = 0; round < 8; round++) {
          const bytes = pattern(1 + ((lane * 7919 + round * 104_729) % (mib / 2)), lane + round)
          await using source = await memory.allocate({ owner: `lane ${lane}`, bytes: bytes.length, device: lane % devices })
          await using target = await memory.allocate({ owner: `lane ${lane}`, bytes: bytes.length, device: (lane + 1) % devices })
          await memory.write(source.id, bytes)
          await memory.copy({ from: source.id, to: target.id, bytes: bytes.length })
          if (lane === 0) await memory.defragment(0)
          const back = new Uint8Array(bytes.length)
          await memory.read(target.id, back)
          assert.equal(Buffer.compare(back, bytes), 0)
        }
      }),
    )
    expectNothingHeld(memory)
  },
}
