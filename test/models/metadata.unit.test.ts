/** What authors write into their files: known fields, capped and escaped, and nothing that decides. */
import { describe, expect, it } from 'vitest'
import { claimedFamily, metadataOf } from '../../src/models/metadata.ts'

const of = (text: Record<string, string>) => metadataOf(new Map(Object.entries(text)))

describe('the words of an author', () => {
  it('ModelSpec 1.0.1', () => {
    expect(
      of({
        'modelspec.sai_model_spec': '1.0.1',
        'modelspec.architecture': 'stable-diffusion-xl-v1-base/lora',
        'modelspec.title': 'Pastel',
        'modelspec.author': 'A',
        'modelspec.description': 'D',
        'modelspec.license': 'CC0',
        'modelspec.date': '2026-01-01',
        'modelspec.resolution': '1024x1024',
        'modelspec.usage_hint': 'weights 0 to 1',
        'modelspec.trigger_phrase': 'pastel, soft',
        'modelspec.tags': 'style, colour',
        'modelspec.prediction_type': 'epsilon',
        'modelspec.thumbnail': 'data:image/jpeg;base64,AAAA',
      }),
    ).toEqual({
      architecture: 'stable-diffusion-xl-v1-base/lora',
      title: 'Pastel',
      author: 'A',
      description: 'D',
      licence: 'CC0',
      date: '2026-01-01',
      resolution: '1024x1024',
      usage: 'weights 0 to 1',
      triggerWords: ['pastel', 'soft'],
      tags: ['style', 'colour'],
      prediction: 'epsilon',
    })
  })

  it('kohya’s: the words of captions by their count, training facts, the base', () => {
    expect(
      of({
        ss_output_name: 'mine',
        ss_base_model_version: 'sdxl_base_v1-0',
        ss_sd_model_name: 'base.safetensors',
        ss_network_dim: '16',
        ss_network_alpha: '8',
        ss_session_id: '123',
        ss_tag_frequency: JSON.stringify({ '10_a': { cat: 3, dog: 9 }, '5_b': { cat: 8, bird: 1 } }),
        ss_v2: 'None',
      }),
    ).toEqual({
      title: 'mine',
      architecture: 'sdxl_base_v1-0',
      base: 'base.safetensors',
      tags: ['cat', 'dog', 'bird'],
      training: { network_dim: '16', network_alpha: '8', v2: 'None' },
    })
  })

  it('diffusers’ of an adapter of peft', () => {
    expect(
      of({
        lora_adapter_metadata: JSON.stringify({
          'transformer.r': 16,
          'transformer.lora_alpha': 16,
          'transformer.target_modules': ['to_q'],
        }),
      }).training,
    ).toEqual({
      'transformer.r': '16',
      'transformer.lora_alpha': '16',
    })
  })

  it.each([
    [{ 'modelspec.prediction_type': 'v' }, 'v'],
    [{ ss_v_parameterization: 'True' }, 'v'],
    [{ 'modelspec.architecture': 'stable-diffusion-v2-768-v' }, 'v'],
    [{ ss_base_model_version: 'sd_v2_768_v' }, 'v'],
    [{ 'modelspec.prediction_type': 'anything' }, undefined],
    [{}, undefined],
  ])('%o predicts %s', (text, prediction) => expect(of(text).prediction).toBe(prediction))

  it.each([
    ['stable-diffusion-xl-v1-base', 'sdxl'],
    ['stable-diffusion-v1', 'sd1'],
    ['stable-diffusion-v2-768-v', 'sd2'],
    ['stable-diffusion-v3.5-large', 'sd3'],
    ['flux-1-dev', 'flux1'],
    ['flux.2-dev', 'flux2'],
    ['qwen-image', 'qwen-image'],
    ['something', undefined],
  ])('%s is a claim of %s', (architecture, family) => expect(claimedFamily({ architecture })).toBe(family))
})

describe('is never believed nor repeated as it is', () => {
  it('controls, line ends and marks of direction are written out', () => {
    expect(of({ 'modelspec.title': 'a\u001B[31mb\nc\u202Ed\u2028e' }).title).toBe('a\\u{1b}[31mb\\u{a}c\\u{202e}d\\u{2028}e')
  })

  it('a long text is cut, and never inside a character', () => {
    const { title = '', description = '' } = of({ 'modelspec.title': '😀'.repeat(5000), 'modelspec.description': 'x'.repeat(1_000_000) })
    expect(title.length).toBeLessThanOrEqual(201)
    expect(() => encodeURIComponent(title)).not.toThrow()
    expect(description.length).toBe(2001)
  })

  it.each([
    ['no JSON', '{'],
    ['no object', '7'],
    ['names of an object’s own', '{"a": {"__proto__": 5, "constructor": 3}}'],
    ['depth', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`],
    ['30,000 tags', JSON.stringify({ a: Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`t${i}`, i])) })],
  ])('captions that are %s harm nothing', (_, frequency) => {
    const begun = process.cpuUsage()
    const { tags = [] } = of({ ss_tag_frequency: frequency })
    expect(tags.length).toBeLessThanOrEqual(64)
    expect(process.cpuUsage(begun).user / 1000).toBeLessThan(500)
    expect(Object.hasOwn(Object.prototype, '__proto__') && ({} as { a?: unknown }).a).toBeUndefined()
  })

  it('a fact named __proto__ is a fact', () => {
    const { training = {} } = of({ lora_adapter_metadata: '{"__proto__": "x", "r": 4}' })
    expect(Object.getPrototypeOf(training)).toBe(Object.prototype)
    expect(training['r']).toBe('4')
  })
})
