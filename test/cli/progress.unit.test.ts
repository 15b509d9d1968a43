import { describe, expect, it } from 'vitest'
import { describeProgress, duration, percent } from '../../src/cli/progress.ts'
import { table } from '../../src/cli/terminal.ts'

const denoise = { fraction: 0.5, step: 'inference.denoise', stage: 'run' }

describe('progress in words', () => {
  it.each([
    [{ ...denoise, call: 12, calls: 20, rate: 9.84, etaS: 0.8 }, 'denoise 12/20  9.8 it/s  0:01 left'],
    [{ ...denoise, call: 3, calls: 30, rate: 0.25, etaS: 108 }, 'denoise 3/30  4.0 s/it  1:48 left'],
    [{ ...denoise, call: 1, calls: 8, image: 2, images: 4 }, 'image 2/4  denoise 1/8'],
    [{ fraction: 0, step: 'inference.encode', stage: 'load' }, 'load model'],
    [{ fraction: 0, step: 'inference.encode', stage: 'load', call: 1024, calls: 6656 }, 'load model 1 GiB/6.5 GiB'],
    [{ fraction: 0, step: 'inference.encode', stage: 'hash', call: 1, calls: 3 }, 'hash model 1 MiB/3 MiB'],
    [{ fraction: 0.3, step: 'model.hash', stage: 'hash', call: 1, calls: 3 }, 'hash 1 MiB/3 MiB'],
    [{ fraction: 0.5, step: 'model.validate', stage: 'validate', call: 1536, calls: 4096 }, 'validate 1.5 GiB/4 GiB'],
    [
      {
        fraction: 0.24,
        step: 'items',
        stage: 'run',
        etaS: 42,
        items: { total: 500, waiting: 364, running: 16, succeeded: 118, failed: 2, cancelled: 0 },
      },
      '120/500 items  16 under way  2 failed  0:42 left',
    ],
    [{ fraction: 0.97, step: 'postprocessing.save', stage: 'run', image: 1, images: 1 }, 'save'],
  ])('%j', (progress, words) => expect(describeProgress(progress)).toBe(words))

  it('says hundred only at the end', () => {
    expect([0, 0.999, 1].map(percent)).toEqual(['  0 %', ' 99 %', '100 %'])
  })

  it('writes times as people read them', () => {
    expect([0.4, 59.6, 725, 3723].map(duration)).toEqual(['0:00', '1:00', '12:05', '1:02:03'])
  })

  it('sets a table that fits the terminal', () => {
    const rows = [
      ['1', 'a long text that would not fit'],
      ['22', 'short'],
    ]
    expect(table(['N', 'TEXT'], rows, 20).split('\n')).toEqual(['N   TEXT', '1   a long text tha…', '22  short'])
  })
})
