/**
 * Files that lie, break off or attack, each with what is said of it: lengths, offsets and shapes that are not true,
 * JSON to be lost in, names that act on a terminal, pickles under other names.
 */
import type { Fault } from '../../src/models/verdict.ts'
import { entry, framed, gguf, ggufBytes, safetensors, type Image } from './headers.ts'
import { rarer } from './hostile-headers.ts'
import { cut, huge, list, lying, one, row, rows, tensor, two, whole, type Case } from './hostile-parts.ts'

const safetensorsCases: Case[] = [
  ['an empty file', whole(''), 'empty', /empty/],
  ['seven bytes', whole('1234567'), 'incomplete', /ends after 7 bytes/],
  ['a length alone', whole(framed('')), 'incomplete', /ends after 8 bytes/],
  ['a header that ends too early', whole(framed('{"a":', 5000n)), 'incomplete', /Incomplete/],
  ['half a download', cut(safetensors({ a: ['F16', [3_450_000_000]] }), 4_800_000_000), 'incomplete', /Incomplete: 2\.1 GB of 6\.9 GB/],
  ['one byte less', cut(safetensors({ a: ['F16', [100]] }), 1), 'incomplete', /199 bytes of 200 bytes/],
  ['one byte more', { ...safetensors({ a: ['F16', [100]] }), body: 201 }, 'trailing_bytes', /1 bytes follow/],
  ['a gigabyte behind the tensors', { ...safetensors({ a: ['F16', [100]] }), body: 1e9 + 200 }, 'trailing_bytes', /1\.0 GB follow/],
  ['a length of 0', whole(framed('{}', 0n)), 'header_size', /0 bytes/],
  ['a length of 1', whole(framed('{}', 1n)), 'header_size', /1 bytes/],
  ['a length of 2^63', whole(framed('{}', huge)), 'header_size', /9223372036854775808 bytes/],
  ['a length of 2^64 - 1', whole(framed('{}', 2n ** 64n - 1n)), 'header_size', /18446744073709551615/],
  ['a header of 100 MB', { head: framed('{"a":', 100_000_000n), body: 100_000_000 }, 'header_size', /100 MB/],
  ['a header of 17 MB', { head: framed('{"a":', 17_000_000n), body: 20_000_000 }, 'header_size', /17\.0 MB; a header has at most 16\.8 MB/],
  ['a byte-order mark', whole(framed('\uFEFF{"a":1}')), 'header_syntax', /byte-order mark/],
  ['a list for an object', whole(framed('[1, 2, 3]')), 'header_syntax', /does not begin/],
  ['no JSON', one('}'), 'header_syntax', /missing/],
  ['JSON that ends in a text', lying('{"abc'), 'header_syntax', /middle of a text/],
  ['JSON that ends in an object', lying('{"a":{"dtype":"F16"'), 'header_syntax', /missing/],
  ['a comma too many', lying(`{"a":${tensor()},}`), 'header_syntax', /missing/],
  ['something behind the JSON', lying(`{"a":${tensor()}} x`), 'header_syntax', /something else/],
  ['two objects', lying(`{"a":${tensor()}}{}`), 'header_syntax', /something else/],
  ['no UTF-8', lying(`{"a\u00ff":${tensor()}}`.replace('\u00ff', 'X')), 'trailing_bytes', /never reached/],
  ['no tensors', lying('{}', 0), 'empty', /no tensors/],
  ['metadata alone', lying('{"__metadata__":{"a":"b"}}', 0), 'empty', /no tensors/],
  ['metadata twice', lying(`{"__metadata__":{},"__metadata__":{},"a":${tensor()}}`), 'duplicate', /two entries/],
  ['an entry of the metadata twice', lying(`{"__metadata__":{"x":"1","x":"2"},"a":${tensor()}}`), 'duplicate', /“x”.*twice/],
  ['metadata that is no text', lying(`{"__metadata__":{"x":1},"a":${tensor()}}`), 'header_syntax', /no text/],
  ['metadata that is deep', lying(`{"__metadata__":{"x":{"y":"z"}},"a":${tensor()}}`), 'header_syntax', /no text/],
  [
    '5,000 entries of metadata',
    lying(`{"__metadata__":${JSON.stringify(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`k${i}`, ''])))},"a":${tensor()}}`),
    'header_limits',
    /more than 4096/,
  ],
  ['a name twice', lying(`{"a":${tensor()},"a":${tensor('F16', [1], [2, 4])}}`, 4), 'duplicate', /Two tensors are named “a”/],
  ['a name twice, once escaped', lying(`{"a":${tensor()},"\\u0061":${tensor('F16', [1], [2, 4])}}`, 4), 'duplicate', /named “a”/],
  ['__proto__ twice', lying(`{"__proto__":${tensor()},"__proto__":${tensor('F16', [1], [2, 4])}}`, 4), 'duplicate', /“__proto__”/],
  ['a field twice', one('{"dtype":"F16","dtype":"F16","shape":[1],"data_offsets":[0,2]}'), 'duplicate', /two fields dtype/],
  ['a field __proto__', one('{"__proto__":{"dtype":"F16"},"shape":[1],"data_offsets":[0,2]}'), 'header_syntax', /“__proto__”/],
  ['a field that is not known', one('{"dtype":"F16","shape":[1],"data_offsets":[0,2],"x":1}'), 'header_syntax', /“x”/],
  ['a field too few', one('{"dtype":"F16","shape":[1]}'), 'tensor', /lacks one of/],
  ['deep lists', one(`${'['.repeat(200_000)}`), 'header_syntax', /missing/],
  ['deep objects', lying(`${'{"a":'.repeat(200_000)}`), 'header_syntax', /missing|“a”/],
  ['a deep shape', one(tensor('F16', [[1]])), 'tensor', /no whole number/],
  [
    'a tensor of rank 100',
    one(
      tensor(
        'F16',
        Array.from({ length: 100 }, () => 1),
      ),
    ),
    'header_limits',
    /more than 16 numbers/,
  ],
  ['three offsets', one(tensor('F16', [1], [0, 2, 4])), 'header_limits', /more than 2/],
  ['one offset', one(tensor('F16', [1], [0])), 'tensor', /no begin and end/],
  ['offsets the wrong way round', one(tensor('F16', [1], [2, 0])), 'tensor', /no begin and end/],
  ['a negative offset', one(tensor('F16', [1], [-2, 0])), 'tensor', /no whole number/],
  ['an offset with a fraction', one('{"dtype":"F16","shape":[1],"data_offsets":[0,2.0]}'), 'tensor', /no whole number/],
  ['an offset with an exponent', one('{"dtype":"F16","shape":[1],"data_offsets":[0,2e0]}'), 'tensor', /no whole number/],
  ['an offset with zeros before it', one('{"dtype":"F16","shape":[1],"data_offsets":[00,2]}'), 'tensor', /no whole number/],
  ['an offset over 2^53', one('{"dtype":"F16","shape":[1],"data_offsets":[0,9007199254740993]}'), 'tensor', /over 2\^53/],
  ['a number of 5 million digits', one(`{"dtype":"F16","shape":[${'9'.repeat(5_000_000)}],"data_offsets":[0,2]}`), 'tensor', /over 2\^53/],
  ['a shape whose product overflows', one(tensor('F16', [4_294_967_296, 4_294_967_296, 4_294_967_296])), 'tensor', /more than 2\^53/],
  [
    'a shape whose product overflows to 0',
    one(tensor('F16', [9_007_199_254_740_991, 9_007_199_254_740_991, 0], [0, 0]), 0),
    'tensor',
    /more than 2\^53/,
  ],
  ['a shape that fits 2^53 and whose bits do not', one(tensor('F64', [9_007_199_254_740_991])), 'tensor', /cannot have/],
  ['a shape that does not fit its offsets', one(tensor('F32', [1])), 'tensor', /of F32 \[1\] cannot have 2 bytes/],
  ['an element type that is not known', one(tensor('F12')), 'tensor', /“F12”/],
  ['an element type of an object’s own', one(tensor('constructor')), 'tensor', /“constructor”/],
  ['an element type that is a number', one(tensor(16)), 'header_syntax', /missing/],
  ['tensors that overlap', two([0, 4], [2, 6], 6), 'layout', /“b” overlaps “a”/],
  ['two tensors in one place', two([0, 4], [0, 4], 4), 'layout', /overlaps/],
  ['a hole between tensors', two([0, 4], [6, 8], 8), 'layout', /gap of 2 bytes behind “a”/],
  ['a hole before the first', two([2, 4], [4, 8], 8), 'layout', /gap of 2 bytes behind the beginning/],
  ['a name with a line end', lying(`{"a\\nb":${tensor()}}`), 'tensor', /“a\\u\{a\}b”/],
  ['a name with an escape of a terminal', lying(`{"\\u001b[2J":${tensor()}}`), 'tensor', /\\u\{1b\}/],
  ['a name that turns the text round', lying(`{"\u202Egpj":${tensor()}}`), 'tensor', /\\u\{202e\}/],
  ['a name of half a character', lying(`{"\\ud800":${tensor()}}`), 'tensor', /\\u\{d800\}/],
  ['a name without a character', lying(`{"":${tensor()}}`), 'tensor', /empty/],
  ['a raw control character', lying(`{"a\nb":${tensor()}}`), 'header_syntax', /unescaped/],
  ['an escape that JSON does not know', lying(`{"\\x41":${tensor()}}`), 'header_syntax', /escape/],
  ['a name of 2,000 characters', lying(`{"${'a'.repeat(2000)}":${tensor()}}`), 'header_limits', /more than 1024 bytes/],
  ['a text of 16 MB', lying(`{"${'a'.repeat(16_000_000)}":${tensor()}}`), 'header_limits', /more than 1024/],
  [
    '70,000 tensors',
    lying(
      JSON.stringify(
        Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`t${i}`, { dtype: 'U8', shape: [0], data_offsets: [0, 0] }])),
      ),
      0,
    ),
    'header_limits',
    /more than 32768/,
  ],
]
// The case of broken UTF-8 needs bytes that no text has.
safetensorsCases[safetensorsCases.findIndex(([name]) => name === 'no UTF-8')] = [
  'no UTF-8',
  { head: framed(Buffer.concat([Buffer.from('{"a'), Buffer.from([0xff, 0xfe]), Buffer.from(`":${tensor()}}`)])), body: 2 },
  'header_syntax',
  /UTF-8/,
]

const { u32, u64 } = ggufBytes
export const fit = { a: ['F32', [16]] } as const
const ggufCases: Case[] = [
  ['four bytes', whole('GGUF'), 'incomplete', /ends after 4 bytes/],
  ['another name', whole('GGUX0000000000000000'), 'header_syntax', /“GGUX”/],
  ['version 1', gguf({ version: 1, tensors: fit }), 'version', /version 1/],
  ['version 9', gguf({ version: 9, tensors: fit }), 'version', /versions 2 and 3/],
  ['the byte order of big machines', gguf({ version: 0x03_00_00_00, tensors: fit }), 'version', /byte order/],
  ['2^63 tensors', gguf({ counts: { tensors: huge } }), 'tensor', /2\^53/],
  ['100,000 tensors', gguf({ counts: { tensors: 100_000 } }), 'header_limits', /100000/],
  ['a million entries', gguf({ counts: { metadata: 1_000_000 } }), 'header_limits', /1000000/],
  ['more tensors than there are', { ...gguf({ tensors: fit, counts: { tensors: 9 } }), body: 0 }, 'incomplete', /in its header/],
  ['no tensors', gguf({}), 'empty', /no tensors/],
  ['a text of 2^50 bytes', gguf({ tensors: fit, metadata: { a: Buffer.concat([u32(8), u64(2n ** 50n)]) } }), 'header_limits', /text of/],
  ['a list of 2^52 numbers', gguf({ tensors: fit, metadata: { a: list(4, 2n ** 52n) } }), 'incomplete', /in its header/],
  ['a list of 2^40 texts', gguf({ tensors: fit, metadata: { a: list(8, 2n ** 40n) } }), 'header_limits', /claims/],
  ['a list of lists', gguf({ tensors: fit, metadata: { a: list(9, 1) } }), 'header_syntax', /unknown type 9/],
  ['a type that is not known', gguf({ tensors: fit, metadata: { a: u32(77) } }), 'header_syntax', /unknown type 77/],
  [
    'an entry twice',
    { ...gguf({ counts: { metadata: 2, tensors: 0 }, metadata: { a: Buffer.concat([u32(4), u32(1), entry('a', 2)]) } }) },
    'duplicate',
    /twice/,
  ],
  ['an alignment of 0', gguf({ tensors: fit, metadata: { 'general.alignment': 0 } }), 'tensor', /alignment 0/],
  ['a tensor twice', rows(row('a', [8], 0, 0), row('a', [8], 0, 32)), 'duplicate', /“a”/],
  ['tensors that overlap', rows(row('a', [16], 0, 0), row('b', [8], 0, 32)), 'layout', /overlaps/],
  ['a hole', rows(row('a', [8], 0, 0), row('b', [8], 0, 64)), 'layout', /gap/],
  ['an offset that is not aligned', rows(row('a', [8], 0, 3)), 'layout', /alignment/],
  ['a tensor of rank 9', rows(row('a', [1, 1, 1, 1, 1, 1, 1, 1, 1], 0, 0)), 'tensor', /9 dimensions/],
  ['a shape that overflows', rows(row('a', [2n ** 40n, 2n ** 40n], 0, 0)), 'tensor', /2\^53/],
  ['a type of tensor that is not known', rows(row('a', [8], 99, 0)), 'tensor', /type 99/],
  ['a row that is no whole block', rows(row('a', [100], 12, 0)), 'tensor', /blocks of 256/],
  ['a name with a line end', rows(row('a\nb', [8], 0, 0)), 'tensor', /\\u\{a\}/],
  ['half a download', cut(gguf({ tensors: { a: ['F32', [1000, 1000]] } }), 2_000_000), 'incomplete', /2\.0 MB of 4\.0 MB/],
  ['bytes behind the tensors', { ...gguf({ tensors: fit }), body: 1000 }, 'trailing_bytes', /follow/],
]

const zip = Buffer.concat([Buffer.from('PK\u0003\u0004'), Buffer.alloc(300)])
const pickle = Buffer.concat([Buffer.from([0x80, 2]), Buffer.from('cposix\nsystem\n'), Buffer.alloc(300)])
/** One that would leave a mark, were it opened. */
export const attackOf = (mark: string): Buffer =>
  Buffer.concat([
    Buffer.from([0x80, 2]),
    Buffer.from(`cos\nsystem\nX`),
    u32(`touch ${mark}`.length),
    Buffer.from(`touch ${mark}`),
    Buffer.from([0x85, 0x52, 0x2e]),
  ])
const foreign = (mark: string): [...Case, ending: string][] => [
  ['a pickle', whole(pickle), 'pickle', /pickle; it is not opened/, '.ckpt'],
  ['a zip of torch', whole(zip), 'pickle', /zip archive/, '.pt'],
  ['a pickle renamed', whole(attackOf(mark)), 'pickle', /pickle/, '.safetensors'],
  ['a zip renamed', whole(zip), 'pickle', /zip/, '.safetensors'],
  ['a zip renamed to GGUF', whole(zip), 'pickle', /zip/, '.gguf'],
  ['a zip bomb', { head: zip, body: 40_000_000_000 }, 'pickle', /zip/, '.safetensors'],
  ['anything that is called a pickle', whole('hello, world, this is no pickle'), 'pickle', /By its ending/, '.pth'],
  [
    'a git-lfs pointer',
    whole('version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 6938040682\n'),
    'lfs_pointer',
    /6\.9 GB/,
    '.safetensors',
  ],
  [
    'a git-lfs pointer to a pickle',
    whole('version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 42\n'),
    'lfs_pointer',
    /42 bytes/,
    '.bin',
  ],
  ['a web page', whole('<!DOCTYPE html><html><body>404</body></html>'), 'web_page', /web page/, '.safetensors'],
  ['an error of a server', whole('{"error":"Unauthorized"}'), 'web_page', /error message/, '.safetensors'],
  ['a gzip archive', whole(Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(300)])), 'other_format', /gzip/, '.safetensors'],
  [
    'a picture',
    whole(Buffer.concat([Buffer.from([0x89]), Buffer.from('PNG'), Buffer.alloc(300)])),
    'other_format',
    /picture/,
    '.safetensors',
  ],
  [
    'a program',
    whole(Buffer.concat([Buffer.from([0x7f]), Buffer.from('ELF'), Buffer.alloc(300)])),
    'other_format',
    /program/,
    '.safetensors',
  ],
]

export interface HostileFile {
  name: string
  image: Image
  ending: string
  code: Fault
  message: RegExp
}

/** All of them. `mark`: the file that a pickle among them makes when it is opened. */
export const hostileFiles = (mark: string): HostileFile[] =>
  [
    ...safetensorsCases.map((each) => [...each, '.safetensors'] as const),
    ...ggufCases.map((each) => [...each, '.gguf'] as const),
    ...foreign(mark),
    ...rarer,
  ].map(([name, image, code, message, ending]) => ({ name: `${ending}: ${name}`, image, ending, code, message }))
