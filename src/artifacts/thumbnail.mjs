/**
 * Thumbnails: what a list shows of a picture. Plain JavaScript, because the process that decodes uploads makes them
 * too, and starts without a compiler.
 */

/** Most pixels of a thumbnail's side. */
export const thumbnailSide = 256

/**
 * A WebP of at most so many pixels a side; a smaller picture keeps its size. Of a picture of 1024 × 1024 it has about 5
 * KB and takes some 10 to 20 ms.
 * @param {import('sharp').Sharp} picture
 * @returns {Promise<Buffer>}
 */
export const thumbnailOf = (picture) =>
  picture.resize(thumbnailSide, thumbnailSide, { fit: 'inside', withoutEnlargement: true }).webp({ quality: 80, effort: 4 }).toBuffer()
