/** Folders of diffusers, transformers and peft: what they are, in which variants, and what is wrong with them where. */
import { cpSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { inspectFolder, modelFolderOf } from '../../src/models/folder.ts'
import { Verdict, stateOf, type Fault } from '../../src/models/verdict.ts'
import { writeSafetensors, type Tensors } from '../support/headers.ts'
import { encoder, of, transformer, unet, vae } from '../support/model-headers.ts'

const base = mkdtempSync(join(tmpdir(), 'darkroom-folder-'))
afterAll(() => rmSync(base, { recursive: true }))

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(base, 'model-'))
})

const at = (...names: string[]): string => join(folder, ...names)
const put = (name: string, content: unknown): void => {
  mkdirSync(at(name, '..'), { recursive: true })
  writeFileSync(at(name), typeof content === 'string' ? content : JSON.stringify(content))
}
const weights = (name: string, tensors: Tensors): string => writeSafetensors(at(name), tensors)
async function verdictOf(): Promise<Verdict> {
  const verdict = await inspectFolder(folder)
  expect(() => Verdict.parse(verdict)).not.toThrow()
  return verdict
}

const plain = {
  scheduler: ['diffusers', 'DDIMScheduler'],
  tokenizer: ['transformers', 'CLIPTokenizer'],
  text_encoder: ['transformers', 'CLIPTextModel'],
  vae: ['diffusers', 'AutoencoderKL'],
  safety_checker: [null, null],
  requires_safety_checker: false,
}

/** A whole SD1.5. */
function sd1(
  pipeline = 'StableDiffusionPipeline',
  network: Tensors = unet.diffusers.sd(768),
  config: object = { in_channels: 4, cross_attention_dim: 768 },
): void {
  put('model_index.json', { _class_name: pipeline, _diffusers_version: '0.40.0', unet: ['diffusers', 'UNet2DConditionModel'], ...plain })
  put('scheduler/scheduler_config.json', { prediction_type: 'epsilon' })
  put('tokenizer/vocab.json', '{}')
  put('tokenizer/merges.txt', '')
  put('unet/config.json', { _class_name: 'UNet2DConditionModel', ...config })
  put('vae/config.json', { _class_name: 'AutoencoderKL' })
  put('text_encoder/config.json', { architectures: ['CLIPTextModel'] })
  weights('unet/diffusion_pytorch_model.safetensors', network)
  weights('vae/diffusion_pytorch_model.safetensors', vae.diffusers(4))
  weights('text_encoder/model.safetensors', encoder.clip(768, 12))
}

describe('a pipeline of diffusers', () => {
  it('is its parts, with family, files and counts', async () => {
    sd1()
    const verdict = await verdictOf()
    expect(verdict).toMatchObject({
      format: 'diffusers',
      kind: 'checkpoint',
      family: 'sd1',
      variants: [],
      precision: 'fp16',
      lacks: [],
      dialect: 'diffusers',
    })
    expect(verdict.components.map(({ name, kind, at: place, files }) => [name, kind, place, files])).toEqual([
      ['unet', 'diffusion-model', 'unet', { '': ['unet/diffusion_pytorch_model.safetensors'] }],
      ['text_encoder', 'text-encoder', 'text_encoder', { '': ['text_encoder/model.safetensors'] }],
      ['vae', 'vae', 'vae', { '': ['vae/diffusion_pytorch_model.safetensors'] }],
    ])
    expect(verdict.parameters).toBe(verdict.components.reduce((sum, { parameters }) => sum + parameters, 0))
    expect(stateOf(verdict)).toBe('understood')
  })

  it('is Darkroom’s own tiny model', async () => {
    const verdict = await inspectFolder(join(root, 'models', 'darkroom-tiny'))
    expect(verdict).toMatchObject({
      kind: 'checkpoint',
      family: 'sd1',
      variants: ['v-prediction'],
      precision: 'fp16',
      lacks: [],
      figures: { contextSize: 96 },
    })
    expect(verdict.reason).toBeUndefined()
  })

  it.each<[string, Tensors, object, string, string[]]>([
    ['StableDiffusionInpaintPipeline', unet.diffusers.sd(768, { input: 9 }), { in_channels: 9 }, 'sd1', ['inpainting']],
    ['StableDiffusionPipeline', unet.diffusers.sd(1024), { cross_attention_dim: 1024 }, 'sd2', []],
    ['StableDiffusionXLPipeline', unet.diffusers.sdxl(), {}, 'sdxl', []],
    ['StableDiffusionXLImg2ImgPipeline', unet.diffusers.refiner(), {}, 'sdxl', ['refiner']],
    [
      'StableDiffusionPipeline',
      of('F16', { 'conv_in.weight': [16, 9, 3, 3] }),
      { in_channels: 9, cross_attention_dim: 32 },
      'sd1',
      ['inpainting'],
    ],
  ])('%s, told by tensors, and by its class where they are of no known size', async (pipeline, network, config, family, variants) => {
    sd1(pipeline, network, config)
    expect(await verdictOf()).toMatchObject({ family, variants })
  })

  it.each([
    ['FluxPipeline', 'FluxTransformer2DModel', transformer.flux1Diffusers(), 'flux1', ['guidance-distilled']],
    ['FluxKontextPipeline', 'FluxTransformer2DModel', transformer.flux1Diffusers(), 'flux1', ['guidance-distilled', 'edit']],
    ['Flux2KleinPipeline', 'Flux2Transformer2DModel', transformer.flux2Diffusers(3072, 7680), 'flux2', ['klein-4b', 'edit']],
    ['ZImagePipeline', 'ZImageTransformer2DModel', transformer.zImageDiffusers(), 'z-image', []],
    ['QwenImageEditPlusPipeline', 'QwenImageTransformer2DModel', transformer.qwenImage(), 'qwen-image', ['edit']],
    ['StableDiffusion3Pipeline', 'SD3Transformer2DModel', transformer.sd3Diffusers(1536), 'sd3', ['medium']],
  ])('%s', async (pipeline, type, tensors, family, variants) => {
    put('model_index.json', { _class_name: pipeline, transformer: ['diffusers', type] })
    put('transformer/config.json', { _class_name: type })
    weights('transformer/diffusion_pytorch_model.safetensors', tensors)
    const verdict = await verdictOf()
    expect(verdict).toMatchObject({ family, variants })
    expect(verdict.lacks.map(({ name }) => name)).toContain('vae')
  })

  it('takes v-prediction and zero-SNR from the scheduler', async () => {
    sd1()
    put('scheduler/scheduler_config.json', { prediction_type: 'v_prediction', rescale_betas_zero_snr: true })
    expect((await verdictOf()).variants).toEqual(['v-prediction', 'zero-snr'])
  })

  it('knows a refiner of any size by what its pipeline asks', async () => {
    sd1('StableDiffusionXLImg2ImgPipeline', of('F16', { 'conv_in.weight': [16, 4, 3, 3] }), { in_channels: 4 })
    expect((await verdictOf()).variants).toEqual([])
    const index = { _class_name: 'StableDiffusionXLImg2ImgPipeline', unet: ['diffusers', 'UNet2DConditionModel'], ...plain }
    put('model_index.json', { ...index, requires_aesthetics_score: true })
    expect(await verdictOf()).toMatchObject({ family: 'sdxl', variants: ['refiner'] })
  })

  it('says when its class and its tensors differ', async () => {
    sd1('StableDiffusionXLPipeline')
    expect(await verdictOf()).toMatchObject({
      family: 'sd1',
      notes: expect.arrayContaining([expect.stringMatching(/pipeline of sdxl.*those of sd1/)]) as string[],
    })
  })

  it('of no family that is known is listed with its name', async () => {
    sd1('AudioLDMPipeline', of('F16', { x: [2] }))
    expect(await verdictOf()).toMatchObject({
      reason: { code: 'not_understood', message: expect.stringMatching(/AudioLDMPipeline/) as string },
    })
  })

  it('whose code would have to be run is told so', async () => {
    sd1()
    put('model_index.json', { _class_name: 'StableDiffusionPipeline', unet: ['my_code', 'UNet2DConditionModel'], ...plain })
    expect((await verdictOf()).notes).toContainEqual(expect.stringMatching(/“my_code”, which is never run/))
  })
})

describe('variants and shards', () => {
  const shards = (variant = ''): [string, string] => [
    `unet/diffusion_pytorch_model${variant}-00001-of-00002.safetensors`,
    `unet/diffusion_pytorch_model${variant}-00002-of-00002.safetensors`,
  ]
  const halves = (): [Tensors, Tensors] => {
    const all = Object.entries(unet.diffusers.sd(768))
    return [Object.fromEntries(all.slice(0, 3)), Object.fromEntries(all.slice(3))]
  }
  function sharded(index = 'unet/diffusion_pytorch_model.safetensors.index.json', variant = ''): void {
    sd1()
    rmSync(at('unet', 'diffusion_pytorch_model.safetensors'))
    const [first, second] = shards(variant)
    const [a, b] = halves()
    weights(first, a)
    weights(second, b)
    const placed = (tensors: Tensors, name: string) => Object.keys(tensors).map((tensor) => [tensor, name.slice('unet/'.length)])
    put(index, { metadata: {}, weight_map: Object.fromEntries([...placed(a, first), ...placed(b, second)]) })
  }

  it('an fp16 variant beside the whole', async () => {
    sd1()
    weights('unet/diffusion_pytorch_model.fp16.safetensors', unet.diffusers.sd(768))
    expect((await verdictOf()).components[0]?.files).toEqual({
      '': ['unet/diffusion_pytorch_model.safetensors'],
      fp16: ['unet/diffusion_pytorch_model.fp16.safetensors'],
    })
  })

  it('an fp16 variant alone', async () => {
    sd1()
    renameSync(at('unet', 'diffusion_pytorch_model.safetensors'), at('unet', 'diffusion_pytorch_model.fp16.safetensors'))
    const verdict = await verdictOf()
    expect(verdict.components[0]?.files).toEqual({ fp16: ['unet/diffusion_pytorch_model.fp16.safetensors'] })
    expect(verdict.reason).toBeUndefined()
  })

  it.each([
    ['', 'unet/diffusion_pytorch_model.safetensors.index.json'],
    ['.fp16', 'unet/diffusion_pytorch_model.safetensors.index.fp16.json'],
  ])('shards%s with their index', async (variant, index) => {
    sharded(index, variant)
    const verdict = await verdictOf()
    expect(verdict).toMatchObject({ family: 'sd1', components: [{ files: { [variant.slice(1)]: shards(variant) } }, {}, {}] })
    expect(verdict.reason).toBeUndefined()
  })

  it('shards without an index', async () => {
    sharded()
    rmSync(at('unet', 'diffusion_pytorch_model.safetensors.index.json'))
    expect(await verdictOf()).toMatchObject({ family: 'sd1', components: [{ files: { '': shards() } }, {}, {}] })
  })

  it.each([true, false])('a shard that is missing, with an index (%s) or without', async (hasIndex) => {
    sharded()
    rmSync(at(shards()[1]))
    if (!hasIndex) rmSync(at('unet', 'diffusion_pytorch_model.safetensors.index.json'))
    expect((await verdictOf()).reason).toMatchObject({
      code: 'weights_missing',
      field: shards()[1],
      message: expect.stringMatching(/1 of its 2 shards is missing: “diffusion_pytorch_model-00002-of-00002/) as string,
    })
  })

  it('99,999 shards are not all named', async () => {
    sd1()
    renameSync(at('unet', 'diffusion_pytorch_model.safetensors'), at('unet', 'diffusion_pytorch_model-00007-of-99999.safetensors'))
    const { reason } = await verdictOf()
    expect(reason?.code).toBe('weights_missing')
    expect(reason?.message.length).toBeLessThan(400)
  })

  it.each<[string, unknown, RegExp]>([
    ['without a map', {}, /no “weight_map”/],
    ['with a list for a map', { weight_map: [] }, /no “weight_map”/],
    ['with an empty map', { weight_map: {} }, /names no tensors/],
    ['that leads out of the folder', { weight_map: { x: '../../secret.safetensors' } }, /no name of a shard/],
    ['that names a number', { weight_map: { x: 7 } }, /no name of a shard/],
  ])('an index %s', async (_, index, message) => {
    sharded()
    put('unet/diffusion_pytorch_model.safetensors.index.json', index)
    expect((await verdictOf()).reason).toMatchObject({
      code: 'config',
      field: 'unet/diffusion_pytorch_model.safetensors.index.json',
      message: expect.stringMatching(message) as string,
    })
  })

  it('a shard that lacks a tensor of its index, and one too many', async () => {
    sharded()
    weights(shards()[1], Object.fromEntries(Object.entries(halves()[1]).slice(1)))
    expect((await verdictOf()).reason).toMatchObject({ code: 'layout', message: expect.stringMatching(/lacks the tensor/) as string })
    weights(shards()[1], { ...halves()[1], more: ['F16', [1]] })
    expect((await verdictOf()).reason).toMatchObject({ code: 'layout', message: expect.stringMatching(/“more”/) as string })
  })

  it('one variant that is broken harms no other', async () => {
    sd1()
    writeFileSync(at('unet', 'diffusion_pytorch_model.fp16.safetensors'), '')
    const verdict = await verdictOf()
    expect(verdict.reason).toBeUndefined()
    expect(verdict.notes).toContainEqual(expect.stringMatching(/“fp16” cannot be used: .*empty/))
  })
})

describe('what is wrong with a folder', () => {
  const broken: [name: string, spoil: () => void, code: Fault, field: string, message: RegExp][] = [
    ['a part is not there', () => rmSync(at('vae'), { recursive: true }), 'weights_missing', 'vae/', /vae\/ is not there/],
    ['a part is empty', () => (rmSync(at('vae'), { recursive: true }), mkdirSync(at('vae'))), 'weights_missing', 'vae/', /is empty/],
    ['a configuration is not there', () => rmSync(at('unet/config.json')), 'link', 'unet/config.json', /leads nowhere/],
    ['weights are not there', () => rmSync(at('unet/diffusion_pytorch_model.safetensors')), 'weights_missing', 'unet/', /has no weights/],
    [
      'weights are pickles only',
      () => renameSync(at('unet/diffusion_pytorch_model.safetensors'), at('unet/diffusion_pytorch_model.bin')),
      'pickle',
      'unet/diffusion_pytorch_model.bin',
      /as pickles only/,
    ],
    [
      'weights are cut off',
      () => truncateSync(at('unet/diffusion_pytorch_model.safetensors'), 5000),
      'incomplete',
      'unet/diffusion_pytorch_model.safetensors',
      /Incomplete/,
    ],
    [
      'weights are a git-lfs pointer',
      () => put('unet/diffusion_pytorch_model.safetensors', 'version https://git-lfs.github.com/spec/v1\n'),
      'lfs_pointer',
      'unet/diffusion_pytorch_model.safetensors',
      /git-lfs/,
    ],
    ['a vocabulary is not there', () => rmSync(at('tokenizer/vocab.json')), 'weights_missing', 'tokenizer/', /has none of tokenizer\.json/],
    ['half a vocabulary', () => rmSync(at('tokenizer/merges.txt')), 'weights_missing', 'tokenizer/merges.txt', /without merges/],
    [
      'an index with a comma too many',
      () => put('model_index.json', '{\n  "_class_name": "StableDiffusionPipeline",\n}'),
      'config',
      'model_index.json',
      /a comma too many, in line 3/,
    ],
    [
      'an index with a byte-order mark',
      () => put('model_index.json', '\uFEFF{"_class_name": "X"}'),
      'config',
      'model_index.json',
      /byte-order mark/,
    ],
    ['an index that ends too early', () => put('model_index.json', '{"_class_name": "X"'), 'config', 'model_index.json', /ends too early/],
    ['an empty index', () => put('model_index.json', ''), 'config', 'model_index.json', /is empty/],
    ['an index that is a list', () => put('model_index.json', '[]'), 'config', 'model_index.json', /no object/],
    [
      'an index that is a git-lfs pointer',
      () => put('model_index.json', 'version https://git-lfs.github.com/spec/v1\n'),
      'config',
      'model_index.json',
      /git-lfs/,
    ],
    ['an index of a wrong type', () => put('model_index.json', { _class_name: 7 }), 'config', 'model_index.json', /_class_name/],
    [
      'an index whose part is a text',
      () => put('model_index.json', { _class_name: 'StableDiffusionPipeline', unet: 'diffusers' }),
      'config',
      'model_index.json',
      /“unet” is no pair/,
    ],
    [
      'an index whose part has three',
      () => put('model_index.json', { _class_name: 'StableDiffusionPipeline', unet: ['a', 'b', 'c'] }),
      'config',
      'model_index.json',
      /no pair/,
    ],
    [
      'an index whose part is no text',
      () => put('model_index.json', { _class_name: 'StableDiffusionPipeline', unet: [1, 2] }),
      'config',
      'model_index.json',
      /no pair/,
    ],
    [
      'an index whose part leads out',
      () => put('model_index.json', { _class_name: 'StableDiffusionPipeline', '../x': ['a', 'b'] }),
      'config',
      'model_index.json',
      /“\.\.\/x” is no name/,
    ],
    [
      'an index without parts',
      () => put('model_index.json', { _class_name: 'StableDiffusionPipeline' }),
      'config',
      'model_index.json',
      /names no parts/,
    ],
    [
      'an index of 40 parts',
      () =>
        put('model_index.json', { _class_name: 'X', ...Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`p${i}`, ['a', 'b']])) }),
      'config',
      'model_index.json',
      /at most 32/,
    ],
    [
      'an index of 5 MB',
      () => put('model_index.json', `{"_class_name": "${'x'.repeat(5_000_000)}"}`),
      'config',
      'model_index.json',
      /5\.0 MB/,
    ],
    ['an index that is deep', () => put('model_index.json', `{"a":${'['.repeat(100_000)}`), 'config', 'model_index.json', /deeper than 32/],
    [
      'an index that is a folder',
      () => (rmSync(at('model_index.json')), mkdirSync(at('model_index.json'))),
      'not_a_file',
      'path',
      /a folder/,
    ],
    [
      'a configuration with __proto__',
      () => put('unet/config.json', '{"__proto__": {"in_channels": 9}, "_class_name": 7}'),
      'config',
      '',
      /never/,
    ],
  ]
  it.each(broken.slice(0, -1))('%s', async (_, spoil, code, field, message) => {
    sd1()
    spoil()
    const verdict = await verdictOf()
    expect(verdict.reason).toMatchObject({ code, field, message: expect.stringMatching(message) as string })
    expect(stateOf(verdict)).not.toBe('understood')
  })

  it('a configuration with __proto__ is one without the field', async () => {
    sd1()
    put('unet/config.json', '{"__proto__": {"in_channels": 9}}')
    expect((await verdictOf()).variants).toEqual([])
  })

  it('a link out of the folder is not followed, unless it may be', async () => {
    sd1()
    const elsewhere = join(base, 'blob')
    renameSync(at('unet/diffusion_pytorch_model.safetensors'), elsewhere)
    symlinkSync(elsewhere, at('unet/diffusion_pytorch_model.safetensors'))
    expect((await verdictOf()).reason).toMatchObject({ code: 'link', field: 'unet/diffusion_pytorch_model.safetensors' })
    const followed = await inspectFolder(folder, async (path) => realpathSync(path))
    expect(followed).toMatchObject({ family: 'sd1' })
    expect(followed.reason).toBeUndefined()
  })
})

describe('one part alone', () => {
  it.each<[string, string, object, Tensors, Partial<Verdict>]>([
    ['a VAE', 'diffusion_pytorch_model', { _class_name: 'AutoencoderKL' }, vae.diffusers(4), { format: 'diffusers', kind: 'vae' }],
    [
      'a ControlNet',
      'diffusion_pytorch_model',
      { _class_name: 'ControlNetModel' },
      { 'controlnet_cond_embedding.conv_in.weight': ['F16', [16, 3, 3, 3]], ...unet.diffusers.sdxl() },
      { format: 'diffusers', kind: 'controlnet', family: 'sdxl' },
    ],
    [
      'a network',
      'diffusion_pytorch_model',
      { _class_name: 'ZImageTransformer2DModel' },
      transformer.zImageDiffusers(),
      { format: 'diffusers', kind: 'diffusion-model', family: 'z-image' },
    ],
    [
      'a text encoder',
      'model',
      { architectures: ['CLIPTextModel'] },
      encoder.clip(1280, 32),
      { format: 'transformers', kind: 'text-encoder', encoder: 'clip-g' },
    ],
    [
      'a classifier',
      'model',
      { architectures: ['ViTForImageClassification'] },
      of('F32', { 'vit.embeddings.cls_token': [1, 1, 768], 'classifier.weight': [2, 768] }),
      { format: 'transformers', kind: 'classifier', architecture: 'vit' },
    ],
  ])('%s', async (_, name, config, tensors, says) => {
    put('config.json', config)
    weights(`${name}.safetensors`, tensors)
    const verdict = await verdictOf()
    expect(verdict).toMatchObject(says)
    expect(verdict.components).toMatchObject([{ at: '', files: { '': [`${name}.safetensors`] } }])
    expect(verdict.reason).toBeUndefined()
  })

  it('an adapter of peft, with the model it was made for', async () => {
    put('adapter_config.json', { peft_type: 'LORA', r: 8, base_model_name_or_path: 'stabilityai/sdxl\u001b' })
    weights(
      'adapter_model.safetensors',
      of('F16', {
        'base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight': [8, 2048],
        'base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight': [640, 8],
      }),
    )
    expect(await verdictOf()).toMatchObject({
      format: 'peft',
      kind: 'lora',
      family: 'sdxl',
      dialect: 'peft',
      metadata: { base: 'stabilityai/sdxl\\u{1b}' },
    })
  })

  it('with pickles only', async () => {
    put('config.json', { architectures: ['CLIPTextModel'] })
    put('pytorch_model.bin', 'x')
    expect(await verdictOf()).toMatchObject({ kind: 'text-encoder', reason: { code: 'pickle', field: 'pytorch_model.bin' } })
  })

  it('the parts of Darkroom’s own tiny model', async () => {
    const model = join(root, 'models', 'darkroom-tiny')
    for (const [part, says] of Object.entries({
      'controlnet-edge': { kind: 'controlnet', family: 'sd1' },
      safety: { kind: 'classifier', architecture: 'resnet' },
      vae: { kind: 'vae', family: 'sd1' },
      text_encoder: { kind: 'text-encoder', encoder: 'darkroom-tiny' },
    })) {
      cpSync(join(model, part), at(part), { recursive: true })
      expect(await inspectFolder(at(part))).toMatchObject(says)
    }
  })
})

describe('whether a folder is one model', () => {
  it.each<[string[], string | undefined]>([
    [['model_index.json', 'unet', 'vae'], 'diffusers'],
    [['adapter_config.json', 'adapter_model.safetensors'], 'peft'],
    [['config.json', 'diffusion_pytorch_model.safetensors'], 'component'],
    [['config.json', 'model.safetensors'], 'transformers'],
    [['config.json', 'pytorch_model.bin'], 'transformers'],
    [['config.json', 'model.safetensors.index.json'], 'transformers'],
    [['config.json', 'juggernaut.safetensors'], undefined],
    [['a.safetensors', 'b.safetensors'], undefined],
    [[], undefined],
  ])('%o is %s', (names, kind) => expect(modelFolderOf(names)).toBe(kind))

  it('one that is none has a verdict still', async () => {
    expect((await verdictOf()).reason).toMatchObject({ code: 'config', field: '.' })
    expect((await inspectFolder(join(folder, 'gone'))).reason).toMatchObject({ code: 'config' })
  })
})

describe('a preprocessor', () => {
  const tensors = of('F32', { 'neck.convs.0.weight': [8, 8, 3, 3], 'head.conv1.bias': [4] })
  const ade = { id2label: Object.fromEntries(Array.from({ length: 150 }, (_, n) => [n, `${n}`])) }

  it.each<[string, object, object]>([
    ['DPTForDepthEstimation', {}, { architecture: 'dpt', task: 'depth', figures: {} }],
    ['DepthAnythingForDepthEstimation', {}, { architecture: 'depth-anything', task: 'depth', figures: {} }],
    ['SegformerForSemanticSegmentation', ade, { architecture: 'segformer', task: 'segment', figures: { labels: 150 } }],
    ['UperNetForSemanticSegmentation', { num_labels: 150 }, { architecture: 'upernet', task: 'segment', figures: { labels: 150 } }],
  ])('of the class %s', async (name, config, says) => {
    put('config.json', { architectures: [name], ...config })
    put('preprocessor_config.json', { size: 64 })
    weights('model.safetensors', tensors)
    const verdict = await verdictOf()
    expect(verdict).toMatchObject({ format: 'transformers', kind: 'preprocessor', precision: 'fp32', parameters: 580, ...says })
    expect(verdict.components).toMatchObject([{ name: 'preprocessor', files: { '': ['model.safetensors'] } }])
    expect(verdict.reason).toBeUndefined()
  })

  it.each<[string, object, RegExp]>([
    [
      'of a class that is not known',
      { architectures: ['GLPNForDepthEstimation'] },
      /^Its class GLPNForDepthEstimation is none of DPTForDepthEstimation, .*UperNetForSemanticSegmentation\.$/,
    ],
    [
      'of other classes of things than ADE20K’s',
      { architectures: ['SegformerForSemanticSegmentation'], num_labels: 19 },
      /^It knows 19 labels; ControlNets are shown the colours of ADE20K’s 150: /,
    ],
    ['without labels', { architectures: ['UperNetForSemanticSegmentation'] }, /^It knows 2 labels; /],
  ])('%s is refused with what would do', async (_, config, words) => {
    put('config.json', config)
    weights('model.safetensors', tensors)
    const verdict = await verdictOf()
    expect(verdict).toMatchObject({ kind: 'preprocessor', reason: { code: 'architecture', field: 'config.json' } })
    expect(verdict.reason?.message).toMatch(words)
    expect(stateOf(verdict)).toBe('refused')
  })

  it('without what says how a picture goes in is broken, and as a pickle refused', async () => {
    put('config.json', { architectures: ['DPTForDepthEstimation'] })
    put('pytorch_model.bin', 'x')
    expect(await verdictOf()).toMatchObject({ kind: 'preprocessor', reason: { code: 'pickle', field: 'pytorch_model.bin' } })
    weights('model.safetensors', tensors)
    expect(await verdictOf()).toMatchObject({ reason: { field: 'preprocessor_config.json' } })
  })
})

describe('a classifier of ONNX', () => {
  const manifest = { labels: ['nsfw', 'normal'], scores: 'softmax', layout: 'nhwc' }

  it('is its graph and its manifest', async () => {
    expect(modelFolderOf(['classifier.json', 'model.onnx'])).toBe('onnx')
    put('classifier.json', manifest)
    put('model.onnx', '\b\u0007graph')
    expect(await verdictOf()).toMatchObject({ format: 'onnx', kind: 'classifier', figures: { labels: 2 }, components: [{ bytes: 7 }] })
  })

  it.each<[string, unknown, string | undefined, Fault, string]>([
    ['labels', { scores: 'softmax' }, 'x', 'config', 'classifier.json'],
    ['a way to scores', { labels: ['a'] }, 'x', 'config', 'classifier.json'],
    ['fields that there are', { ...manifest, threshold: 1 }, 'x', 'config', 'classifier.json'],
    ['a graph', manifest, undefined, 'weights_missing', 'model.onnx'],
    ['a graph that has bytes', manifest, '', 'empty', 'model.onnx'],
    ['a graph that was fetched', manifest, 'version https://git-lfs.github.com/spec/v1', 'lfs_pointer', 'model.onnx'],
    ['a graph and no page', manifest, '<!DOCTYPE html>', 'web_page', 'model.onnx'],
  ])('needs %s', async (_, told, graph, code, field) => {
    put('classifier.json', told)
    if (graph !== undefined) put('model.onnx', graph)
    expect((await verdictOf()).reason).toMatchObject({ code, field })
  })

  it('may be a detector of faces, by its own manifest', async () => {
    put('detector.json', { detector: 'yunet' })
    put('model.onnx', 'graph')
    expect(modelFolderOf(['detector.json', 'model.onnx'])).toBe('onnx')
    expect(await verdictOf()).toMatchObject({ format: 'onnx', kind: 'face-detector', figures: {} })
    put('detector.json', { detector: 'mine' })
    expect((await verdictOf()).reason).toMatchObject({ code: 'config', field: 'detector.json' })
  })

  it('is not followed out of the folder', async () => {
    put('classifier.json', manifest)
    writeFileSync(join(base, 'elsewhere.onnx'), 'x')
    symlinkSync(join(base, 'elsewhere.onnx'), at('model.onnx'))
    expect((await verdictOf()).reason).toMatchObject({ code: 'weights_missing', field: 'model.onnx' })
  })
})
