/** Of what models are made that are files: from headers of real sizes and our own configurations. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { besideOf, compose, stockOf } from '../../src/models/composing.ts'
import { configRoots, readConfigSet, readConfigSets } from '../../src/models/configs.ts'
import { Composer } from '../../src/models/composer.ts'
import type { Entry } from '../../src/models/entry.ts'
import { identityFiles, identityOf } from '../../src/models/hash.ts'
import { importConfigs } from '../../src/models/import-configs.ts'
import { Scanner } from '../../src/models/scanner.ts'
import { root } from '../../src/config.ts'
import { gguf, writeImage, writeSafetensors, type Tensors } from '../support/headers.ts'
import { checkpoint as model, encoder, transformer, under, unet, vae } from '../support/model-headers.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-composing-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const shipped = join(root, 'python/darkroom/configs')
const write = (file: string, tensors: Tensors, metadata?: Record<string, string>): string =>
  writeSafetensors(join(folder, 'models', file), tensors, metadata)
/** The configurations of this test: ours, and CLIP's vocabulary unless it is left out. */
const configs = (hasWords = true): string[] => {
  const [imported = '', made = '', own = ''] = configRoots({ data: join(folder, 'data'), home: join(folder, 'home') })
  if (hasWords) {
    cpSync(join(shipped, 'clip'), join(made, 'clip'), { recursive: true })
    for (const name of ['tokenizer', 'tokenizer_2', 'tokenizer_3'])
      for (const file of ['vocab.json', 'merges.txt']) writeFileSync(join(made, 'clip', name, file), '{}')
  }
  return [imported, made, own]
}
async function composed(roots = configs()): Promise<(name: string) => Entry> {
  const scanner = new Scanner([join(folder, 'models')])
  await scanner.scan()
  const composer = new Composer(roots)
  await composer.compose(scanner.entries)
  expect(await composer.compose(scanner.entries)).toEqual([])
  return (name) => {
    const found = [...scanner.entries.values()].find((entry) => entry.name === name)
    if (!found) throw new Error(`no ${name}`)
    return found
  }
}
const checkpoint = (): Tensors => ({
  ...under('model.diffusion_model.', unet.original.sd(768)),
  ...under('first_stage_model.', vae.original(4)),
  ...under('cond_stage_model.transformer.', encoder.clip(768, 12)),
})
/** Each part with its configuration's folder and the file and prefix of its weights. */
const partsOf = ({ made }: Entry): string[] =>
  (made?.parts ?? []).map(({ name, folder: at, weights }) =>
    [name, at.split('/').slice(-2).join('/'), ...(weights ? [`${basename(weights.path)}:${weights.prefix}`] : [])].join(' '),
  )

describe('a checkpoint of Stable Diffusion 1', () => {
  it('is made of itself, our configurations and CLIP’s vocabulary', async () => {
    write('sd.safetensors', checkpoint())
    const entry = (await composed())('sd')
    expect(entry.obstacle).toBeNull()
    expect(entry.drawing).toMatchObject({ family: 'sd1', scale: 8, recommended: { width: 512, height: 512 } })
    expect(partsOf(entry)).toEqual([
      'unet stable-diffusion-1/unet sd.safetensors:model.diffusion_model.',
      'text_encoder clip/text_encoder sd.safetensors:cond_stage_model.transformer.',
      'tokenizer clip/tokenizer',
      'vae stable-diffusion-1/vae sd.safetensors:first_stage_model.',
      'scheduler stable-diffusion-1/scheduler',
    ])
  })

  it('says that it lacks the vocabulary', async () => {
    write('sd.safetensors', checkpoint())
    const entry = (await composed(configs(false)))('sd')
    expect(entry.drawing).toBeNull()
    expect(entry.obstacle).toMatch(/^it lacks tokenizer, the vocabulary of clip-l; import it with `darkroom models import-config FOLDER`/)
  })

  it('that predicts v by its author’s word has the scheduler for it', async () => {
    write('v.safetensors', checkpoint(), { 'modelspec.prediction_type': 'v' })
    const entry = (await composed())('v')
    expect(entry.verdict.variants).toEqual(['v-prediction'])
    expect(partsOf(entry)).toContain('scheduler stable-diffusion-1/scheduler_2')
  })

  it('takes the VAE beside it; one that is for all takes none', async () => {
    write('one.safetensors', checkpoint())
    write('two.safetensors', checkpoint())
    write('one.vae.safetensors', vae.original(4))
    const of = await composed()
    expect(partsOf(of('one'))).toContain('vae stable-diffusion-1/vae one.vae.safetensors:')
    expect(partsOf(of('two'))).toContain('vae stable-diffusion-1/vae two.safetensors:first_stage_model.')
  })

  it.each([
    ['stable-diffusion-1', () => model.sd1({ input: 9 })],
    ['stable-diffusion-xl', () => model.sdxl({ input: 9 })],
  ] as const)('for inpainting has the network of nine channels, and asks for a mask: %s', async (set, tensors) => {
    write('inpainting.safetensors', tensors())
    const entry = (await composed())('inpainting')
    expect(entry).toMatchObject({ obstacle: null, drawing: { needs: 'mask' } })
    expect(partsOf(entry)).toContain(`unet ${set}/unet_2 inpainting.safetensors:model.diffusion_model.`)
    expect(partsOf(entry)).toContain(`vae ${set}/vae inpainting.safetensors:first_stage_model.`)
  })

  it('that edits by instructions is told for that, and not for its configuration', async () => {
    write('edit.safetensors', { ...checkpoint(), ...under('model.diffusion_model.', unet.original.sd(768, { input: 8 })) })
    expect((await composed())('edit').obstacle).toMatch(/instruct/)
  })
})

/** Of files in a model folder, with sets that were imported: JSON by path. */
async function ofFlow(model: string, files: Record<string, Tensors>, sets: Record<string, object>): Promise<string[]> {
  for (const [file, tensors] of Object.entries(files)) write(file, tensors)
  for (const [file, json] of Object.entries(sets)) {
    const path = join(folder, 'data/configs', file)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, JSON.stringify(json))
  }
  const scanner = new Scanner([join(folder, 'models')])
  await scanner.scan()
  const entry = [...scanner.entries.values()].find(({ name }) => name === model)
  if (!entry) throw new Error(`no ${model}`)
  const composition = compose(
    entry,
    stockOf(scanner.entries.values(), await readConfigSets(configs())),
    await readConfigSet(besideOf(entry.path)),
  )
  return 'made' in composition ? partsOf({ ...entry, made: composition.made }) : composition.lacks
}
const kl = { _class_name: 'AutoencoderKL', latent_channels: 16, block_out_channels: [128, 256, 512, 512] }
const flow = (name: string, pipeline: string, config: object, its: object = kl): Record<string, object> => ({
  [`${name}/model_index.json`]: { _class_name: pipeline },
  [`${name}/transformer/config.json`]: config,
  [`${name}/vae/config.json`]: its,
  [`${name}/scheduler/scheduler_config.json`]: {},
})
const t5 = (type: string): object => ({ model_type: type, d_model: 4096, num_layers: 24 })
const flux = (isGuided: boolean): object => ({
  _class_name: 'FluxTransformer2DModel',
  num_attention_heads: 24,
  attention_head_dim: 128,
  num_layers: 19,
  guidance_embeds: isGuided,
})
const parts = {
  'text_encoders/t5-fp8.safetensors': encoder.t5('F8_E4M3'),
  'text_encoders/t5-full.safetensors': encoder.t5('BF16'),
  'text_encoders/clip_l.safetensors': encoder.clip(768, 12),
  'vae/ae.safetensors': vae.original(16),
  'vae/qwen_image_vae.safetensors': vae.wan(),
}

describe('a diffusion model without its parts', () => {
  const sets = {
    ...flow('dev', 'FluxPipeline', flux(true)),
    ...flow('schnell', 'FluxPipeline', flux(false)),
    // Of the same size and layers as T5's.
    'a-video/text_encoder/config.json': t5('umt5'),
    'a-video/tokenizer/tokenizer.json': {},
    'dev/text_encoder_2/config.json': t5('t5'),
    'dev/tokenizer_2/tokenizer.json': {},
  }

  it.each(['dev', 'schnell'])('takes encoders, VAE and configurations that fit: FLUX.1 %s', async (name) => {
    const files = { [`diffusion_models/${name}.safetensors`]: transformer.flux1({ isGuided: name === 'dev' }), ...parts }
    expect(await ofFlow(name, files, sets)).toEqual([
      `transformer ${name}/transformer ${name}.safetensors:`,
      'text_encoder clip/text_encoder clip_l.safetensors:',
      'tokenizer clip/tokenizer',
      'text_encoder_2 dev/text_encoder_2 t5-full.safetensors:',
      'tokenizer_2 dev/tokenizer_2',
      `vae ${name}/vae ae.safetensors:`,
      `scheduler ${name}/scheduler`,
    ])
  })

  it.each<[string, string, string | undefined]>([
    ['Q4_K', 'T5 in Q6_K', undefined],
    ['F16', 'T5 in Q6_K', undefined],
    ['IQ2_XXS', 'T5 in Q6_K', 'transformer in a packing that is loaded: gguf IQ2_XXS is not'],
  ])('of GGUF files in %s takes an encoder of another, or names the packing', async (type, _, lack) => {
    const { 'text_encoders/t5-fp8.safetensors': _fp8, 'text_encoders/t5-full.safetensors': _full, ...others } = parts
    for (const [file, tensors] of Object.entries(others)) write(file, tensors)
    const packed = Object.fromEntries(
      Object.entries(transformer.flux1({ type: 'F16' })).map(([name, [old, shape]]) => [
        name,
        [shape.length > 1 && (shape.at(-1) ?? 0) % 256 === 0 ? type : old, shape] as const,
      ]),
    )
    writeImage(join(folder, 'models/diffusion_models/dev.gguf'), gguf({ tensors: packed, metadata: { 'general.architecture': 'flux' } }))
    const llama: Tensors = { 'token_embd.weight': ['Q6_K', [32_128, 4096]], 'enc.blk.23.ffn_up.weight': ['Q6_K', [10_240, 4096]] }
    writeImage(join(folder, 'models/text_encoders/t5-xxl.gguf'), gguf({ tensors: llama, metadata: {} }))
    expect(await ofFlow('dev', {}, sets)).toEqual(
      lack === undefined
        ? [
            'transformer dev/transformer dev.gguf:',
            'text_encoder clip/text_encoder clip_l.safetensors:',
            'tokenizer clip/tokenizer',
            'text_encoder_2 dev/text_encoder_2 t5-xxl.gguf:',
            'tokenizer_2 dev/tokenizer_2',
            'vae dev/vae ae.safetensors:',
            'scheduler dev/scheduler',
          ]
        : [lack],
    )
  })

  it('names the vocabulary that nobody has imported', async () => {
    const without = Object.fromEntries(Object.entries(sets).filter(([file]) => !file.startsWith('dev/tokenizer_2')))
    expect(await ofFlow('dev', { 'diffusion_models/dev.safetensors': transformer.flux1(), ...parts }, without)).toEqual([
      'tokenizer_2, the vocabulary of t5-xxl',
    ])
  })

  it('does not choose between schedulers whose shift differs: Z-Image and its Turbo', async () => {
    const zImage = { _class_name: 'ZImageTransformer2DModel', dim: 3840 }
    const set = (name: string, shift: number) => ({
      ...flow(name, 'ZImagePipeline', zImage),
      [`${name}/text_encoder/config.json`]: { model_type: 'qwen3', hidden_size: 2560, num_hidden_layers: 36 },
      [`${name}/tokenizer/tokenizer.json`]: {},
      [`${name}/scheduler/scheduler_config.json`]: { shift },
    })
    const files = {
      'diffusion_models/z.safetensors': transformer.zImage(),
      'text_encoders/qwen.safetensors': encoder.language(2560, 36, 1024, 'query'),
      'vae/ae.safetensors': vae.original(16),
    }
    expect(await ofFlow('z', files, set('turbo', 3))).toContain('scheduler turbo/scheduler')
    expect(await ofFlow('z', files, set('base', 6))).toEqual([
      'scheduler: base, turbo fit and differ in their shift, so put the one that is meant into z.configs/scheduler',
    ])
    expect(await ofFlow('z', files, { '../../models/diffusion_models/z.configs/scheduler/scheduler_config.json': { shift: 3 } })).toContain(
      'scheduler z.configs/scheduler',
    )
  })

  it('takes a VAE of its own kind only: Qwen-Image', async () => {
    const qwen = { _class_name: 'QwenImageTransformer2DModel', num_attention_heads: 24, attention_head_dim: 128 }
    const files = {
      'diffusion_models/qwen.safetensors': transformer.qwenImage(),
      'text_encoders/vl.safetensors': encoder.language(3584, 28, 512, 'bias'),
      ...parts,
    }
    const own = {
      ...flow('qwen', 'QwenImagePipeline', qwen, { _class_name: 'AutoencoderKLQwenImage', z_dim: 16 }),
      'qwen/text_encoder/config.json': { model_type: 'qwen2_5_vl', text_config: { hidden_size: 3584, num_hidden_layers: 28 } },
      'qwen/tokenizer/vocab.json': {},
    }
    expect(await ofFlow('qwen', files, own)).toEqual(['tokenizer, the vocabulary of qwen2.5-vl-7b'])
    expect(await ofFlow('qwen', files, { ...own, 'qwen/tokenizer/merges.txt': {} })).toEqual([
      'transformer qwen/transformer qwen.safetensors:',
      'text_encoder qwen/text_encoder vl.safetensors:',
      'tokenizer qwen/tokenizer',
      'vae qwen/vae qwen_image_vae.safetensors:',
      'scheduler qwen/scheduler',
      ' configs/qwen',
    ])
    // Its tensors are those of the model for edits, which has another pipeline: the name tells.
    const { 'diffusion_models/qwen.safetensors': network, ...others } = files
    const edit = { ...others, 'diffusion_models/qwen-edit.safetensors': network }
    const both = { ...own, 'qwen/tokenizer/merges.txt': {} }
    const editing = Object.fromEntries(Object.entries(both).map(([file, content]) => [file.replace(/^qwen/, 'editing'), content]))
    editing['editing/model_index.json'] = { _class_name: 'QwenImageEditPipeline' }
    expect(await ofFlow('qwen-edit', edit, { ...both, ...editing })).toContain(' configs/editing')
  })
})

describe('Stable Diffusion XL', () => {
  it('takes what its pipeline makes of an empty prompt from the set, and counts it in its hash', async () => {
    write('xl.safetensors', model.sdxl())
    const entry = (await composed())('xl')
    expect(entry.obstacle).toBeNull()
    expect(entry.made?.parts.map(({ name }) => name)).toEqual([
      'unet',
      'text_encoder',
      'tokenizer',
      'text_encoder_2',
      'tokenizer_2',
      'vae',
      'scheduler',
      '',
    ])
    const roles = entry.made?.files.map(({ role }) => role) ?? []
    expect(roles).toEqual(expect.arrayContaining(['model_index.json', 'tokenizer_2/vocab.json', 'text_encoder_2/config.json']))
    expect(new Set(roles).size).toBe(roles.length)
  })
})

describe('its hash', () => {
  const identity = (entry: Entry, change?: string) => {
    const files = identityFiles(entry)
    return identityOf(
      false,
      files,
      files.map((file) => ({ body: file.path === change ? 'other' : basename(file.path), sha256: 's', short: 'h' })),
    )
  }

  it('follows from every file, and from no folder that they lie in', async () => {
    write('sd.safetensors', checkpoint())
    const entry = (await composed())('sd')
    const { bodyHash, sha256, shortHash } = identity(entry)
    expect([sha256, shortHash]).toEqual(['s', 'h'])
    expect(entry.made?.files.length).toBeGreaterThanOrEqual(8)
    for (const { path } of entry.made?.files ?? []) expect(identity(entry, path).bodyHash).not.toBe(bodyHash)
    const elsewhere = JSON.parse(JSON.stringify(entry).replaceAll(folder, '/else')) as Entry
    expect(identity(elsewhere).bodyHash).toBe(bodyHash)
  })
})

describe('import-config', () => {
  const source = (files: Record<string, string | Buffer>): string => {
    const path = join(folder, 'source')
    for (const [file, content] of Object.entries(files)) {
      mkdirSync(join(path, file, '..'), { recursive: true })
      writeFileSync(join(path, file), content)
    }
    return path
  }
  const data = (): string => join(folder, 'data')

  it('takes configurations and vocabularies, and no weights', async () => {
    const from = source({
      'text_encoder/config.json': '{"a": 1}',
      'text_encoder/model.safetensors': 'x',
      'text_encoder/model.safetensors.index.json': '{}',
      'tokenizer/spiece.model': Buffer.from([0x0a, 1]),
      'model_index.json': '{}',
      'README.md': 'x',
    })
    const { parts, left, path, known } = await importConfigs(from, data())
    expect(path).toBe(join(data(), 'configs', 'source'))
    expect(parts).toEqual([
      { name: 'text_encoder', files: ['config.json'] },
      { name: 'tokenizer', files: ['spiece.model'] },
    ])
    expect(left.map(({ file }) => file)).toEqual(['text_encoder/model.safetensors', 'text_encoder/model.safetensors.index.json'])
    expect(known).toEqual([])
    // Again, with less: the set is replaced as a whole.
    rmSync(join(from, 'tokenizer'), { recursive: true })
    expect((await importConfigs(from, data())).parts).toHaveLength(1)
  })

  it.each<[string, Record<string, string | Buffer>, RegExp]>([
    ['nothing to take', { 'README.md': 'x' }, /no part of a pipeline with a configuration/],
    ['JSON that is none', { 'vae/config.json': '{"a": 1,}' }, /vae\/config\.json is no JSON: a comma too many/],
    ['JSON that is a list', { 'vae/config.json': '[1]' }, /holds no object/],
    ['deep JSON', { 'vae/config.json': '{"a":'.repeat(40) + '1' + '}'.repeat(40) }, /nested deeper/],
    ['an empty file', { 'vae/config.json': '' }, /has 0 bytes/],
    ['a git-lfs pointer', { 'tokenizer/vocab.json': 'version https://git-lfs.github.com/spec/v1\n' }, /git-lfs pointer/],
    ['a vocabulary that is a pickle', { 'tokenizer/spiece.model': Buffer.from([0x80, 2]) }, /no vocabulary of SentencePiece/],
    ['merges that are no text', { 'tokenizer/merges.txt': Buffer.from([0xff, 0xfe, 1]) }, /no text in UTF-8/],
  ])('refuses %s', async (_, files, why) => {
    await expect(importConfigs(source(files), data())).rejects.toThrow(why)
    await expect(importConfigs(source(files), data())).rejects.toMatchObject({ code: 'model.unusable', field: 'FOLDER' })
  })

  it('refuses a pipe, a folder that is none and a name that leads away', async () => {
    const from = source({ 'vae/config.json': '{}' })
    symlinkSync('/dev/zero', join(from, 'vae', 'more.json'))
    await expect(importConfigs(from, data())).rejects.toThrow(/more\.json is no regular file/)
    await expect(importConfigs(join(folder, 'nowhere'), data())).rejects.toThrow(/ENOENT/)
    await expect(importConfigs(from, data(), '../x')).rejects.toThrow(/no name of a set/)
  })
})

describe('a ControlNet of one file', () => {
  const control = (prefix: string, context: number): Tensors => ({
    [`${prefix}input_hint_block.0.weight`]: ['F16', [16, 3, 3, 3]],
    [`${prefix}zero_convs.0.0.weight`]: ['F16', [320, 320, 1, 1]],
    [`${prefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight`]: ['F16', [320, context]],
  })
  const union = (tasks: number): Tensors => ({
    'controlnet_cond_embedding.conv_in.weight': ['F16', [48, 3, 3, 3]],
    'control_add_embedding.linear_1.bias': ['F16', [1280]],
    task_embedding: ['F16', [tasks, 320]],
    'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight': ['F16', [640, 2048]],
  })

  const zImage = (layers: number, shown: number): Tensors => ({
    'control_all_x_embedder.2-1.weight': ['BF16', [3840, shown]],
    ...Object.fromEntries(Array.from({ length: layers }, (_, n) => [`control_layers.${n}.after_proj.weight`, ['BF16', [3840, 3840]]])),
  })

  it.each<[string, Tensors, string]>([
    ['for version 1', control('control_model.', 768), 'stable-diffusion-1'],
    ['without the prefix, for version 2', control('', 1024), 'stable-diffusion-2'],
    ['a union for XL', union(6), 'stable-diffusion-xl-union'],
    ['a ProMax for XL', union(8), 'stable-diffusion-xl-union-promax'],
    ['the first for Z-Image', zImage(6, 64), 'z-image'],
  ])('%s is made of its tensors and our configuration', async (_, tensors, set) => {
    const path = write('edges.safetensors', tensors)
    const entry = (await composed())('edges')
    const at = join(shipped, 'controlnet', set)
    expect(entry.made?.parts).toEqual([{ name: '', folder: at, weights: { path, prefix: '' } }])
    expect(identityFiles(entry)).toMatchObject([
      { path, role: 'network' },
      { path: join(at, 'config.json'), role: 'config.json' },
    ])
    expect(entry).toMatchObject({ drawing: null, verdict: { kind: 'controlnet' } })
  })

  it.each<[string, Tensors]>([
    ['of 15 layers, which two versions have', zImage(15, 132)],
    ['of another number of layers', zImage(7, 64)],
  ])('guesses no configuration of one for Z-Image %s', async (_, tensors) => {
    write('edges.safetensors', tensors)
    expect((await composed())('edges').made ?? null).toBe(null)
  })

  it('counts the configuration beside it first, and is none without any', async () => {
    const path = write('edges.safetensors', control('control_model.', 768))
    expect((await composed([]))('edges').made ?? null).toBe(null)
    mkdirSync(besideOf(path))
    writeFileSync(join(besideOf(path), 'config.json'), '{}')
    expect((await composed())('edges').made?.parts).toMatchObject([{ folder: besideOf(path) }])
  })
})
