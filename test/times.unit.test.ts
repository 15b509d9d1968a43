import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { root } from '../src/config.ts'

it('no farm but those of test/long runs on the leases and sweeps of the product, and one there is about them', () => {
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.test.ts'))
  const onThem = files.filter((file) => /times: productTimes|times = productTimes/.test(readFileSync(join(root, 'test', file), 'utf8')))
  // Not this one, which spells it.
  const farms = onThem.filter((file) => file !== 'times.unit.test.ts')
  expect(farms.filter((file) => !file.startsWith('long/'))).toEqual([])
  expect(farms).toContain('long/worker-death.test.ts')
})
