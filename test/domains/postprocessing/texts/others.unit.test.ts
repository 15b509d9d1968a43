/** Requests from the texts of ComfyUI, InvokeAI and a receipt; what is broken or hostile is no request. */
import { describe, expect, it } from 'vitest'
import { readRequest, tellingTexts } from '../../../../src/domains/postprocessing/texts/index.ts'
import { readGraph } from '../../../../src/domains/postprocessing/texts/comfyui.ts'
import { readInvoke } from '../../../../src/domains/postprocessing/texts/invokeai.ts'
import { iTXt, pngWith, tEXt } from '../../../support/pictures.ts'

type Node = { class_type: string; inputs: Record<string, unknown> }
const node = (type: string, inputs: Record<string, unknown> = {}): Node => ({ class_type: type, inputs })

/** The graph that ComfyUI opens with. */
const usual = (): Record<string, Node> => ({
  '3': node('KSampler', {
    seed: 156680208700286,
    steps: 20,
    cfg: 8,
    sampler_name: 'dpmpp_2m',
    scheduler: 'karras',
    denoise: 1,
    model: ['4', 0],
    positive: ['6', 0],
    negative: ['7', 0],
    latent_image: ['5', 0],
  }),
  '4': node('CheckpointLoaderSimple', { ckpt_name: 'sd15\\v1-5-pruned-emaonly.safetensors' }),
  '5': node('EmptyLatentImage', { width: 512, height: 768, batch_size: 1 }),
  '6': node('CLIPTextEncode', { text: 'a glass bottle', clip: ['4', 1] }),
  '7': node('CLIPTextEncode', { text: 'text, watermark', clip: ['4', 1] }),
  '8': node('VAEDecode', { samples: ['3', 0], vae: ['4', 2] }),
  '9': node('SaveImage', { filename_prefix: 'ComfyUI', images: ['8', 0] }),
})
const read = (graph: object) => readGraph(JSON.stringify(graph))
const whys = ({ unread }: { unread: { name: string; why: string }[] }) => Object.fromEntries(unread.map(({ name, why }) => [name, why]))

describe('a graph of ComfyUI', () => {
  it('of stock nodes is the whole request', () => {
    const { input, unread } = read(usual())
    expect(unread).toEqual([])
    expect(input).toEqual({
      prompt: 'a glass bottle',
      negativePrompt: 'text, watermark',
      width: 512,
      height: 768,
      steps: 20,
      guidance: 8,
      seed: 156680208700286,
      sampler: 'DPM++ 2M Karras',
      model: 'sd15/v1-5-pruned-emaonly',
    })
  })

  it('of two samplers, the second over the first’s, larger, is a request with a second pass', () => {
    for (const enlarger of [
      { '11': node('LatentUpscaleBy', { upscale_method: 'nearest-exact', scale_by: 1.5, samples: ['3', 0] }) },
      {
        '11': node('VAEEncode', { pixels: ['14', 0], vae: ['4', 2] }),
        '14': node('ImageScaleBy', { upscale_method: 'lanczos', scale_by: 1.5, image: ['15', 0] }),
        '15': node('VAEDecode', { samples: ['3', 0], vae: ['4', 2] }),
      },
    ]) {
      const second = node('KSampler', {
        ...usual()['3']?.inputs,
        steps: 12,
        denoise: 0.5,
        sampler_name: 'euler',
        scheduler: 'simple',
        latent_image: ['11', 0],
        positive: ['16', 0],
      })
      const { input, unread } = read({
        ...usual(),
        ...enlarger,
        '12': second,
        '16': node('CLIPTextEncode', { text: 'a large glass bottle', clip: ['4', 1] }),
        '8': node('VAEDecode', { samples: ['12', 0], vae: ['4', 2] }),
      })
      expect(unread).toEqual([])
      expect(input).toMatchObject({ prompt: 'a glass bottle', steps: 20, sampler: 'DPM++ 2M Karras', width: 512 })
      expect(input.hires).toEqual({
        scale: 1.5,
        steps: 12,
        strength: 0.5,
        upscaler: '14' in enlarger ? 'lanczos' : 'latent-nearest',
        sampler: 'Euler',
        schedule: 'Simple',
        prompt: 'a large glass bottle',
      })
    }
  })

  it('of a flow model: its sampler in nodes of its own', () => {
    const { input, unread } = read({
      '1': node('SaveImage', { images: ['2', 0] }),
      '2': node('VAEDecode', { samples: ['3', 0] }),
      '3': node('SamplerCustomAdvanced', {
        noise: ['4', 0],
        guider: ['5', 0],
        sampler: ['6', 0],
        sigmas: ['7', 0],
        latent_image: ['8', 0],
      }),
      '4': node('RandomNoise', { noise_seed: 42 }),
      '5': node('BasicGuider', { model: ['9', 0], conditioning: ['10', 0] }),
      '6': node('KSamplerSelect', { sampler_name: 'euler' }),
      '7': node('BasicScheduler', { scheduler: 'simple', steps: 4, denoise: 1, model: ['9', 0] }),
      '8': node('EmptySD3LatentImage', { width: 1024, height: 1024, batch_size: 1 }),
      '9': node('UNETLoader', { unet_name: 'flux1-schnell.safetensors', weight_dtype: 'default' }),
      '10': node('FluxGuidance', { guidance: 3.5, conditioning: ['11', 0] }),
      '11': node('CLIPTextEncode', { text: 'a bottle', clip: ['12', 0] }),
      '12': node('DualCLIPLoader', { clip_name1: 't5xxl', clip_name2: 'clip_l' }),
    })
    expect(unread).toEqual([])
    expect(input).toMatchObject({
      prompt: 'a bottle',
      seed: 42,
      steps: 4,
      guidance: 3.5,
      width: 1024,
      model: 'flux1-schnell',
      sampler: 'Euler',
    })
  })

  it('tells of each node that it passes, and of what it cannot take', () => {
    const graph = usual()
    graph['3'] = node('KSampler', {
      ...graph['3']?.inputs,
      model: ['20', 0],
      positive: ['21', 0],
      scheduler: 'ddim_uniform',
      seed: ['22', 0],
    })
    graph['20'] = node('LoraLoader', { lora_name: 'x.safetensors', strength_model: 0.8, model: ['4', 0], clip: ['4', 1] })
    graph['21'] = node('ControlNetApply', { conditioning: ['6', 0], strength: 1, image: ['23', 0] })
    graph['22'] = node('SeedFromElsewhere', { any: 1 })
    graph['6'] = node('CLIPTextEncode', { text: 'a glass bottle', clip: ['24', 0] })
    graph['24'] = node('CLIPSetLastLayer', { stop_at_clip_layer: -2, clip: ['4', 1] })
    graph['8'] = node('ImageSharpen', { image: ['25', 0] })
    graph['25'] = node('VAEDecode', { samples: ['3', 0] })
    const reading = read(graph)
    expect(reading.input).toMatchObject({ prompt: 'a glass bottle', steps: 20, model: 'sd15/v1-5-pruned-emaonly', sampler: 'DPM++ 2M' })
    expect(reading.input).not.toHaveProperty('seed')
    expect(whys(reading)).toMatchObject({
      'node 20, LoraLoader': expect.stringMatching(/none of the nodes/),
      'node 21, ControlNetApply': expect.stringMatching(/none of the nodes/),
      'node 24, CLIPSetLastLayer': expect.stringMatching(/none of the nodes/),
      'node 8, ImageSharpen': expect.stringMatching(/none of the nodes/),
      'KSampler scheduler': expect.stringMatching(/no schedule "ddim_uniform"/),
      'node 3, KSampler, seed': expect.stringMatching(/SeedFromElsewhere/),
    })
  })

  it('over a picture says that the picture is to be sent', () => {
    const graph = usual()
    graph['5'] = node('VAEEncode', { pixels: ['30', 0], vae: ['4', 2] })
    graph['30'] = node('LoadImage', { image: 'photo.png' })
    graph['3'] = node('KSampler', { ...graph['3']?.inputs, denoise: 0.6 })
    const reading = read(graph)
    expect(reading.input).not.toHaveProperty('strength')
    expect(whys(reading)['node 30, LoadImage']).toMatch(/send it here/)
    expect(reading.unread.find(({ name }) => name === 'node 3, KSampler, denoise')).toMatchObject({ value: '0.6' })
  })

  it('that goes round in a circle ends', () => {
    const graph = usual()
    graph['3'] = node('KSampler', { ...graph['3']?.inputs, latent_image: ['40', 0], model: ['41', 0], positive: ['42', 0] })
    graph['40'] = node('LatentUpscaleBy', { samples: ['40', 0], scale_by: 2, upscale_method: 'bilinear' })
    graph['41'] = node('ModelSamplingFlux', { model: ['41', 0] })
    graph['42'] = node('ConditioningSetTimestepRange', { conditioning: ['43', 0] })
    graph['43'] = node('ConditioningSetTimestepRange', { conditioning: ['42', 0] })
    const { input } = read(graph)
    expect(input).toMatchObject({ steps: 20, guidance: 8 })
    expect(input).not.toHaveProperty('prompt')
    expect(() => read({ '1': node('SaveImage', { images: ['1', 0] }) })).toThrow(/no sampler/)
  })

  it.each([
    ['no JSON', '{', /no JSON/],
    ['a list', '[]', /no object/],
    ['no node', '{"1": {"inputs": {}}}', /no node/],
    ['no sampler', '{"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}}}', /no sampler/],
    ['nested deeply', `{"1":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, /nested more than 100 deep/],
    ['names of every object', '{"__proto__": {"class_type": "SaveImage"}, "constructor": {"class_type": "toString"}}', /no sampler/],
  ])('is none: %s', (_, text, why) => {
    expect(() => readGraph(text)).toThrow(why)
  })

  it('of a hundred thousand nodes is read at once', () => {
    const chain = Object.fromEntries(
      Array.from({ length: 100_000 }, (_, i) => [String(i), node('Reroute', { model: [String(i + 1), 0], samples: [String(i + 1), 0] })]),
    )
    const started = performance.now()
    expect(() => read({ ...chain, '0': node('SaveImage', { images: ['1', 0] }) })).toThrow(/no sampler/)
    expect(performance.now() - started).toBeLessThan(3000)
  })
})

describe('the metadata of InvokeAI', () => {
  it('are the request, and what there is no setting for', () => {
    const { input, unread, modelHash } = readInvoke(
      JSON.stringify({
        generation_mode: 'txt2img',
        positive_prompt: 'a lighthouse',
        negative_prompt: 'fog',
        width: 832,
        height: 1216,
        seed: 77,
        rand_device: 'cpu',
        cfg_scale: 5.5,
        cfg_rescale_multiplier: 0,
        steps: 30,
        scheduler: 'dpmpp_2m_sde_k',
        clip_skip: 0,
        model: { key: 'k', hash: 'blake3:abcdef', name: 'Juggernaut XL v9', base: 'sdxl', type: 'main' },
        vae: { name: 'sdxl-vae-fp16-fix' },
        loras: [{ model: { name: 'ink' }, weight: 0.75 }],
        app_version: '5.4.2',
      }),
    )
    expect(input).toEqual({
      prompt: 'a lighthouse',
      negativePrompt: 'fog',
      width: 832,
      height: 1216,
      seed: 77,
      guidance: 5.5,
      steps: 30,
      sampler: 'DPM++ 2M SDE',
      schedule: 'Karras',
      model: 'Juggernaut XL v9',
    })
    expect(modelHash).toBe('blake3:abcdef')
    expect(unread).toEqual([
      { name: 'vae', value: '{"name":"sdxl-vae-fp16-fix"}', why: expect.stringMatching(/VAE of its model/) },
      { name: 'loras', value: expect.stringContaining('ink'), why: expect.stringMatching(/no such setting/) },
    ])
  })

  it('of the versions before the third', () => {
    const { input } = readInvoke(
      JSON.stringify({
        model: 'stable diffusion',
        model_weights: 'sd-1.5',
        image: {
          prompt: [{ prompt: 'a cat [dog, bird]', weight: 1 }],
          steps: 50,
          cfg_scale: 7.5,
          seed: 3,
          sampler: 'k_euler_a',
          width: 512,
          height: 512,
        },
      }),
    )
    expect(input).toMatchObject({ prompt: 'a cat', negativePrompt: 'dog, bird', steps: 50, sampler: 'Euler a', seed: 3, model: 'sd-1.5' })
  })

  it.each(['null', '[1]', '"x"', '{"positive_prompt"', '{"positive_prompt": {"a": 1}, "steps": "3", "seed": 1e40, "model": 5}'])(
    'that are none, or hold other values: %s',
    (text) => {
      let input: object = {}
      try {
        ;({ input } = readInvoke(text))
      } catch (error) {
        expect((error as Error).message).toMatch(/JSON/)
      }
      expect(input).toEqual({})
    },
  )
})

describe('the texts of a file', () => {
  const receipt = {
    workflow: 'image-generation@1',
    input: {
      model: { id: 'm', bodyHash: 'a'.repeat(64) },
      prompt: 'from the receipt',
      negativePrompt: '',
      width: 64,
      height: 64,
      steps: 4,
      guidance: 3,
      seed: 1,
      sampler: 'DDIM',
    },
    exactness: { key: 'k', facts: {} },
  }
  const infotext = 'from the text\nSteps: 4, Sampler: DDIM, Seed: 1'

  it('are believed in an order: a receipt before what others write', () => {
    const file = pngWith(
      tEXt('parameters', infotext),
      tEXt('prompt', JSON.stringify(usual())),
      iTXt('darkroom', JSON.stringify(receipt), true),
    )
    expect(readRequest(file).reading).toMatchObject({ source: 'darkroom', input: { prompt: 'from the receipt', model: 'm' } })
    expect(readRequest(pngWith(tEXt('prompt', JSON.stringify(usual())), tEXt('parameters', infotext))).reading?.source).toBe('a1111')
    expect(readRequest(pngWith(tEXt('prompt', JSON.stringify(usual())))).reading?.source).toBe('comfyui')
    expect(tellingTexts(file).map(([keyword]) => keyword)).toEqual(['darkroom', 'parameters', 'prompt'])
  })

  it('that are broken make room for the next, and are told', () => {
    const file = pngWith(
      tEXt('darkroom', '{"workflow": 1}'),
      tEXt('parameters', '{"sui_image_params": {}}'),
      tEXt('prompt', JSON.stringify(usual())),
    )
    const { reading, broken } = readRequest(file)
    expect(reading?.source).toBe('comfyui')
    expect(broken).toEqual([
      { name: 'darkroom', value: '{"workflow": 1}', why: expect.stringMatching(/no receipt of this version: workflow/) },
      { name: 'parameters', value: expect.any(String), why: expect.stringMatching(/not known/) },
    ])
  })

  it('that tell nothing are no request', () => {
    expect(readRequest(pngWith(tEXt('Software', 'x'), tEXt('parameters', 'a poem')))).toEqual({
      reading: undefined,
      broken: [{ name: 'parameters', value: 'a poem', why: 'it has no line of settings' }],
    })
  })
})
