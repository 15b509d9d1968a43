/**
 * Thumbnails: what a list shows of a picture. Plain JavaScript, because the process that decodes uploads makes them
 * too, and starts without a compiler.
 */

/** Most pixels of a thumbnail's side. */
export const thumbnailSide = 256

/**
 * A WebP of at most so many pixels a side; a smaller picture keeps its size. Of a picture of 1024 × 1024 it has about 9
 * KB and takes some 10 ms: more effort takes as long again for a twentieth of the bytes.
 * @param {import('sharp').Sharp} picture
 * @returns {Promise<Buffer>}
 */
export const thumbnailOf = (picture) =>
  picture.resize(thumbnailSide, thumbnailSide, { fit: 'inside', withoutEnlargement: true }).webp({ quality: 80, effort: 2 }).toBuffer()
