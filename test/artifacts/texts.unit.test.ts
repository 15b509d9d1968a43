/** Texts in files, well made and hostile. */
import { deflateSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { textLimits, textsOf, withTexts } from '../../src/artifacts/texts.ts'
import { chunk, iTXt, jpegWith, pngWith, tEXt, tiffWith, unicodeComment, webpWith, zTXt } from '../support/pictures.ts'

const read = (file: Uint8Array): Record<string, string> => Object.fromEntries(textsOf(file).texts)
const unread = (file: Uint8Array): Record<string, string> => Object.fromEntries(textsOf(file).unread)
const comment = 0x9286

describe('the texts of a PNG', () => {
  it('are those of all three kinds of chunk, each in its code; the first of a keyword counts', () => {
    const file = pngWith(
      tEXt('a', 'caf\xe9'),
      zTXt('b', deflateSync(Buffer.from('gr\xfcn', 'latin1'))),
      iTXt('c', '猫'),
      iTXt('d', '🐈 deflated', true),
      tEXt('a', 'another'),
    )
    expect(read(file)).toEqual({ a: 'café', b: 'grün', c: '猫', d: '🐈 deflated' })
  })

  it('are those that were written into it', () => {
    const texts: [string, string][] = [
      ['parameters', 'a café\nin the rain'],
      ['darkroom', '{"猫":1}'],
    ]
    expect(read(withTexts(pngWith(), texts))).toEqual(Object.fromEntries(texts))
  })

  it('that inflate to more than they may are left out, and said; those behind them are refused too', () => {
    const bomb = deflateSync(Buffer.alloc(64 * 2 ** 20))
    expect(bomb.length).toBeLessThan(100_000)
    const file = pngWith(tEXt('first', 'x'), zTXt('bomb', bomb), zTXt('again', bomb), tEXt('last', 'y'))
    expect(read(file)).toEqual({ first: 'x' })
    expect(unread(file)).toEqual({
      bomb: expect.stringMatching(/inflates to more/),
      again: expect.stringMatching(/longer than/),
      last: expect.stringMatching(/longer than/),
    })
  })

  it('have limits together: bytes and how many', () => {
    const large = 'x'.repeat(textLimits.bytes - 10)
    expect(Object.keys(read(pngWith(tEXt('a', large), tEXt('b', 'y'.repeat(20)), tEXt('c', 'z'))))).toEqual(['a', 'c'])
    const many = Array.from({ length: 1000 }, (_, i) => tEXt(`k${i}`, 'v'))
    expect(Object.keys(read(pngWith(...many)))).toHaveLength(textLimits.count)
  })

  it.each([
    ['without a keyword', tEXt('', 'x')],
    ['with a keyword too long', tEXt('k'.repeat(90), 'x')],
    ['without its zeros', chunk('iTXt', Buffer.from('key\0\0\0en'))],
    ['of nothing', chunk('tEXt', Buffer.alloc(0))],
  ])('that are broken are none: %s', (_, broken) => {
    expect(read(pngWith(broken, tEXt('k', 'v')))).toEqual({ k: 'v' })
  })

  it('that cannot be inflated are said', () => {
    expect(unread(pngWith(zTXt('a', Buffer.from('no zlib'))))).toEqual({ a: 'it cannot be inflated' })
  })

  it('end where the file does, wherever that is', () => {
    const file = pngWith(tEXt('a', 'x'), iTXt('b', 'y', true))
    for (let length = 0; length <= file.length; length++) expect(() => textsOf(file.subarray(0, length))).not.toThrow()
    const lengths = [0xffffffff, 0x7fffffff, 0x80000000]
    for (const length of lengths) {
      const lying = Buffer.from(file)
      lying.writeUInt32BE(length, 33)
      expect(() => textsOf(lying)).not.toThrow()
    }
  })

  it('named as fields of every object are texts like others', () => {
    expect([...textsOf(pngWith(tEXt('__proto__', 'x'), tEXt('constructor', 'y'))).texts]).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
  })
})

describe('the comment of EXIF', () => {
  const text = 'a café, 猫\nSteps: 20, Sampler: Euler, Seed: 1'
  it.each([
    ['a JPEG', jpegWith, false],
    ['a JPEG in the other order', jpegWith, true],
    ['a WebP', webpWith, false],
    ['a WebP in the other order', webpWith, true],
  ])('of %s is what others call `parameters`', (_, made, isLittle) => {
    expect(read(made(tiffWith({ tag: comment, value: unicodeComment(text), isLittle })))).toEqual({ parameters: text })
  })

  it.each([
    ['UTF-16 with the low byte first', Buffer.concat([Buffer.from('UNICODE\0'), Buffer.from(text, 'utf16le')])],
    ['UTF-16 with a mark', unicodeComment(`\ufeff${text}`)],
    ['UTF-8 under another name', Buffer.concat([Buffer.from('ASCII\0\0\0'), Buffer.from(text)])],
    ['padded with zeros', Buffer.concat([Buffer.alloc(8), Buffer.from(text), Buffer.alloc(100)])],
  ])('in %s', (_, value) => {
    expect(read(jpegWith(tiffWith({ tag: comment, value, isLittle: true })))).toEqual({ parameters: text })
  })

  it('and the graph of ComfyUI in the names of maker and model', () => {
    const value = Buffer.from('prompt:{"1":{}}\0')
    expect(read(webpWith(tiffWith({ tag: 0x0110, value, isLittle: true })))).toEqual({ prompt: '{"1":{}}' })
    expect(read(webpWith(tiffWith({ tag: 0x010f, value: Buffer.from('Canon EOS\0'), isLittle: true })))).toEqual({})
  })

  it('is none where the file is broken: cut anywhere, with any byte another one', () => {
    for (const made of [jpegWith, webpWith]) {
      const file = made(tiffWith({ tag: comment, value: unicodeComment(text), isLittle: true }))
      for (let at = 0; at < file.length; at++) {
        expect(() => textsOf(file.subarray(0, at))).not.toThrow()
        for (const value of [0, 0x7f, 0xff]) {
          const changed = Buffer.from(file)
          changed[at] = value
          expect(() => textsOf(changed)).not.toThrow()
        }
      }
    }
  })

  it('of many zeros is read at once', () => {
    const value = Buffer.concat([Buffer.alloc(8), Buffer.alloc(60_000), Buffer.from('x')])
    const started = performance.now()
    textsOf(jpegWith(tiffWith({ tag: comment, value, isLittle: true })))
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

it('other files have no texts', () => {
  expect(read(Buffer.from('GIF89a'))).toEqual({})
  expect(read(new Uint8Array())).toEqual({})
})
