/**
 * Files that are rarer than those of `hostile-files.ts`: headers that cost time where they are read by chance slowly,
 * numbers at the edge of what a number is, texts that are none, and what else people have under the name of a model.
 */
import { framed, gguf, ggufBytes, safetensors, text, type Image, type Tensors } from './headers.ts'
import { list, lying, row, rows, tensor, whole, type Case } from './hostile-parts.ts'
import { checkpoint } from './model-headers.ts'

const { u32, u64 } = ggufBytes
const MiB = 2 ** 20
const some: Tensors = { a: ['F32', [16]] }

/** So many tensors without elements. */
const many = (count: number, nameOf: (i: number) => string): Image => {
  const empty = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
  return lying(`{${Array.from({ length: count }, (_, i) => `${JSON.stringify(nameOf(i))}:${empty}`).join(',')}}`, 0)
}
const sd1 = (shapeOf: (shape: readonly number[]) => number[]): Image =>
  safetensors(Object.fromEntries(Object.entries(checkpoint.sd1()).map(([name, [type, shape]]) => [name, [type, shapeOf(shape)] as const])))
const aligned = (value: Buffer | string | number): Image => gguf({ tensors: some, metadata: { 'general.alignment': value } })
const texts = (entries: number): string => Array.from({ length: entries }, (_, i) => `"k${i}":"v"`).join(',')
const listed = (count: number): Buffer => list(8, count, [Buffer.alloc(8 * count)])
const bytes = (latin1: string): Image => whole(Buffer.concat([Buffer.from(latin1, 'latin1'), Buffer.alloc(300)]))

const safetensorsCases: Case[] = [
  ['16 MB of white space', lying(`{${' '.repeat(16 * MiB - 200)}"a":${tensor()}}`), 'not_understood', /“a”/],
  [
    'white space in a list',
    lying(`{"a":{"dtype":"F16","shape":[${'\n'.repeat(8 * MiB)}1],"data_offsets":[0,2]}}`),
    'not_understood',
    /“a”/,
  ],
  ['zeros behind the JSON', lying(`{"a":${tensor()}}\0\0\0\0`), 'header_syntax', /something else/],
  ['long paths of modules', many(15_000, (i) => `${'down_blocks.0.'.repeat(60)}${i}`), 'not_understood', /15000 tensors/],
  ['names of digits and dots', many(15_000, (i) => `${'1.'.repeat(450)}${i}`), 'not_understood', /15000 tensors/],
  ['names of dots', many(15_000, (i) => `${'.'.repeat(900)}${i}`), 'not_understood', /15000 tensors/],
  ['32,768 tensors in one place', many(32_768, (i) => `t${i}`), 'not_understood', /32768 tensors/],
  ['an element type in small letters', lying(`{"a":${tensor('f16')}}`), 'tensor', /“f16”/],
  ['a tensor of one and a half bytes', lying(`{"a":${tensor('F4', [3])}}`), 'tensor', /F4 \[3\] cannot have 2 bytes/],
  ['4,097 texts', lying(`{"__metadata__":{${texts(4097)}},"a":${tensor()}}`), 'header_limits', /more than 4096 entries/],
  ['a tensor that is null', lying('{"a":null}'), 'header_syntax', /an object is missing/],
  ['metadata that is null', lying(`{"__metadata__":null,"a":${tensor()}}`), 'header_syntax', /an object is missing/],
  ['a colon too few', lying(`{"a" ${tensor()}}`), 'header_syntax', /“:” is missing/],
  ['an element type that is true', lying('{"a":{"dtype":true,"shape":[1],"data_offsets":[0,2]}}'), 'header_syntax', /quotes is missing/],
  ['a name that deletes', lying(`{"a\u007F":${tensor()}}`), 'tensor', /\\u\{7f\}/],
  ['a name that parts lines', lying(`{"a\u2028b":${tensor()}}`), 'tensor', /\\u\{2028\}/],
  [
    'half a character behind the JSON',
    { head: framed(Buffer.concat([Buffer.from(`{"a":${tensor()}} `), Buffer.from([0xe2, 0x82])])), body: 2 },
    'header_syntax',
    /UTF-8/,
  ],
  ['a model without elements', sd1((shape) => shape.map(() => 0)), 'not_understood', /No rule fits/],
  ['a model of scalars', sd1(() => []), 'not_understood', /No rule fits/],
  ['a model of 16 dimensions', sd1(() => Array<number>(16).fill(1)), 'not_understood', /No rule fits/],
  ['zeros alone, as before a download', { head: Buffer.alloc(0), body: 1e9 }, 'header_size', /0 bytes/],
]

const ggufCases: Case[] = [
  ['an alignment that is no number', aligned(Buffer.concat([u32(6), Buffer.from('0000c07f', 'hex')])), 'header_syntax', /alignment/],
  ['an alignment that is a text', aligned('64'), 'header_syntax', /alignment/],
  ['an alignment below zero', aligned(Buffer.concat([u32(5), Buffer.alloc(4, 0xff)])), 'header_syntax', /alignment/],
  ['an alignment of 2^31', aligned(2 ** 31), 'tensor', /alignment 2147483648/],
  [
    'three lists of 600,000 texts',
    gguf({ tensors: some, metadata: { a: listed(600_000), b: listed(600_000), c: listed(600_000) } }),
    'header_limits',
    /1200000 texts/,
  ],
  ['a text of 2^52 bytes in a list', gguf({ tensors: some, metadata: { a: list(8, 3, [u64(2n ** 52n)]) } }), 'incomplete', /in its header/],
  [
    'a header of 40 MB',
    gguf({ tensors: some, metadata: { a: 'x'.repeat(20 * MiB), b: 'x'.repeat(20 * MiB) } }),
    'header_size',
    /more than 33\.6 MB/,
  ],
  ['an offset of 2^53 - 1', rows(row('a', [8], 0, 9_007_199_254_740_991n)), 'layout', /alignment/],
  ['a name without a character', rows(row('', [8], 0, 0)), 'tensor', /empty/],
  [
    'a name that is no UTF-8',
    rows(Buffer.concat([u64(2), Buffer.from('fffe', 'hex'), row('', [8], 0, 0).subarray(8)])),
    'header_syntax',
    /UTF-8/,
  ],
  [
    'an entry whose name is no UTF-8',
    whole(Buffer.concat([Buffer.from('GGUF'), u32(3), u64(1), u64(1), u64(2), Buffer.from('fffe', 'hex'), u32(4), u32(1)])),
    'header_syntax',
    /UTF-8/,
  ],
  ['zeros alone', { head: Buffer.alloc(0), body: 1e9 }, 'header_syntax', /GGUF/],
]

const foreign: [...Case, ending: string][] = [
  ['a web page behind a byte-order mark', whole('\uFEFF \n<!DOCTYPE html><html></html>'), 'web_page', /web page/, '.safetensors'],
  ['errors of a server', whole('{"errors":[{"message":"Not found"}]}'), 'web_page', /error message/, '.safetensors'],
  ['an empty zip', bytes('PK\u0005\u0006'), 'pickle', /zip/, '.safetensors'],
  ['a part of a zip', bytes('PK\u0007\u0008'), 'pickle', /zip/, '.gguf'],
  ['a pickle of text', whole("(dp0\nS'a'\np1\ncposix\nsystem\np2\n"), 'header_size', /claims a header/, '.safetensors'],
  ['a program with a zip behind it', whole(`MZ${'\0'.repeat(300)}PK\u0003\u0004`), 'other_format', /program/, '.safetensors'],
  ['an HDF5 file', bytes('\x89HDF\r\n\x1a\n'), 'other_format', /HDF5/, '.safetensors'],
  ['a 7z archive', bytes('7z\xbc\xaf\x27\x1c'), 'other_format', /7z/, '.safetensors'],
  ['a rar archive', bytes('Rar!\x1a\x07'), 'other_format', /rar/, '.safetensors'],
  ['a zstd archive', bytes('\x28\xb5\x2f\xfd'), 'other_format', /zstd/, '.safetensors'],
  ['an array of NumPy', bytes('\x93NUMPY\x01'), 'other_format', /NumPy/, '.sft'],
  ['a model of GGML', bytes('tjgg'), 'other_format', /GGML/, '.gguf'],
  [
    'a graph of ONNX',
    whole(Buffer.concat([Buffer.from([8, 7, 0x12, 7]), text('pytorch')])),
    'header_size',
    /claims a header/,
    '.safetensors',
  ],
]

export const rarer: readonly (readonly [...Case, ending: string])[] = [
  ...safetensorsCases.map((each) => [...each, '.safetensors'] as const),
  ...ggufCases.map((each) => [...each, '.gguf'] as const),
  ...foreign,
]
