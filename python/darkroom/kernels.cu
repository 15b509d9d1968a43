// Kernels of a GPU that torch has in a slower form: group norm with what follows it, and a gated linear unit.
// Compiled by NVRTC for the device there is, once for each `Element` (see kernels.py, which also says the shapes).
//
// Every sum has one order, which follows from the shape alone: the same numbers give the same bits at each run.

typedef unsigned short u16;

#if defined(ELEMENT_HALF)
typedef u16 Element;
__device__ inline float wide(Element bits) { float number; asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits)); return number; }
__device__ inline Element narrow(float number) { u16 bits; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(number)); return bits; }
#elif defined(ELEMENT_BFLOAT)
typedef u16 Element;
__device__ inline float wide(Element bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ inline Element narrow(float number) { u16 bits; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(number)); return bits; }
#else
typedef float Element;
__device__ inline float wide(Element number) { return number; }
__device__ inline Element narrow(float number) { return number; }
#endif

// 16 bytes at once.
constexpr int VECTOR = 16 / sizeof(Element);
struct alignas(16) Vector { Element of[VECTOR]; };

constexpr int THREADS = 256;

// Mean and the sum of squared distances from it, of `count` numbers.
struct Moments { float mean, squares; };

// Sums of two numbers over a block of THREADS, in every thread.
__device__ inline float2 over_block(float2 own) {
    __shared__ float2 of_warps[THREADS / 32];
    for (int step = 16; step > 0; step /= 2) {
        own.x += __shfl_xor_sync(0xffffffffu, own.x, step);
        own.y += __shfl_xor_sync(0xffffffffu, own.y, step);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
    __syncthreads();
    float2 sum = of_warps[0];
    for (int warp = 1; warp < THREADS / 32; warp++) {
        sum.x += of_warps[warp].x;
        sum.y += of_warps[warp].y;
    }
    return sum;
}

// Distances are taken from a number that is near the mean, so that their squares keep the digits of the variance.
__device__ inline Moments moments_of(float near, float sum, float squares, float count) {
    const float from_near = sum / count;
    return {near + from_near, fmaxf(0.0f, squares - sum * from_near)};
}

// Moments of a part of a plane, one block for each: `given` is [planes, size], `made` [planes, parts].
extern "C" __global__ void moments_of_planes(const Element* given, Moments* made, int size, int length, int is_aligned) {
    const int plane = blockIdx.x, part = blockIdx.y;
    const int begin = part * length, end = min(size, begin + length);
    const Element* own = given + (long long)plane * size;
    const float near = wide(own[begin]);
    float2 sums = {0.0f, 0.0f};
    if (is_aligned) {
        for (int at = begin + threadIdx.x * VECTOR; at < end; at += THREADS * VECTOR) {
            const Vector held = *reinterpret_cast<const Vector*>(own + at);
            #pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                const float distance = wide(held.of[i]) - near;
                sums.x += distance;
                sums.y += distance * distance;
            }
        }
    } else {
        for (int at = begin + threadIdx.x; at < end; at += THREADS) {
            const float distance = wide(own[at]) - near;
            sums.x += distance;
            sums.y += distance * distance;
        }
    }
    sums = over_block(sums);
    if (threadIdx.x == 0) made[plane * gridDim.y + part] = moments_of(near, sums.x, sums.y, end - begin);
}

// The same where channels lie beside one another: `given` is [rows, size, channels], `made` [rows, channels, parts]. A
// block has blockDim.x lanes, each of `wide_by` channels, and blockDim.y places that it goes over in turn.
template <int WIDE>
__device__ inline void moments_of_lanes(const Element* given, Moments* made, int size, int channels, int length) {
    extern __shared__ float2 of_places[];
    const int row = blockIdx.x, part = blockIdx.y;
    const int channel = (blockIdx.z * blockDim.x + threadIdx.x) * WIDE;
    const int begin = part * length, end = min(size, begin + length);
    const bool is_in = channel < channels;
    const Element* own = given + (long long)row * size * channels + channel;
    float near[WIDE];
    float2 sums[WIDE];
    #pragma unroll
    for (int i = 0; i < WIDE; i++) {
        near[i] = is_in ? wide(own[(long long)begin * channels + i]) : 0.0f;
        sums[i] = {0.0f, 0.0f};
    }
    if (is_in) for (int at = begin + threadIdx.y; at < end; at += blockDim.y) {
        alignas(16) Element held[WIDE];
        if (WIDE == VECTOR) *reinterpret_cast<Vector*>(held) = *reinterpret_cast<const Vector*>(own + (long long)at * channels);
        else held[0] = own[(long long)at * channels];
        #pragma unroll
        for (int i = 0; i < WIDE; i++) {
            const float distance = wide(held[i]) - near[i];
            sums[i].x += distance;
            sums[i].y += distance * distance;
        }
    }
    for (int i = 0; i < WIDE; i++) {
        __syncthreads();
        of_places[threadIdx.y * blockDim.x + threadIdx.x] = sums[i];
        __syncthreads();
        if (threadIdx.y == 0 && is_in) {
            float2 sum = {0.0f, 0.0f};
            for (int place = 0; place < blockDim.y; place++) {
                sum.x += of_places[place * blockDim.x + threadIdx.x].x;
                sum.y += of_places[place * blockDim.x + threadIdx.x].y;
            }
            made[((long long)row * channels + channel + i) * gridDim.y + part] = moments_of(near[i], sum.x, sum.y, end - begin);
        }
    }
}

extern "C" __global__ void moments_of_channels(const Element* given, Moments* made, int size, int channels, int length, int is_aligned) {
    if (is_aligned) moments_of_lanes<VECTOR>(given, made, size, channels, length);
    else moments_of_lanes<1>(given, made, size, channels, length);
}

// What each channel is multiplied by and what is added, from the moments of its group's parts (Chan, Golub and LeVeque
// 1979, "Updating formulae and a pairwise algorithm for computing sample variances"). One block for each row's group:
// `parts` is [rows, channels, count], `scales` and `shifts` are [rows, channels].
extern "C" __global__ void scales_of_groups(
    const Moments* parts, const Element* weight, const Element* bias, float* scales, float* shifts,
    int channels, int per_group, int size, int length, int count, float eps) {
    const int row = blockIdx.x, group = blockIdx.y;
    const long long first = (long long)row * channels + (long long)group * per_group;
    const Moments* own = parts + first * count;
    const int all = per_group * count;
    const float total = (float)per_group * (float)size;
    float2 sums = {0.0f, 0.0f};
    for (int at = threadIdx.x; at < all; at += THREADS) {
        const int part = at % count;
        sums.x += own[at].mean * ((float)(min(size, (part + 1) * length) - part * length) / total);
    }
    const float mean = over_block(sums).x;
    sums = {0.0f, 0.0f};
    for (int at = threadIdx.x; at < all; at += THREADS) {
        const int part = at % count;
        const float distance = own[at].mean - mean;
        sums.y += own[at].squares + distance * distance * (float)(min(size, (part + 1) * length) - part * length);
    }
    const float deviation = rsqrtf(over_block(sums).y / total + eps);
    for (int at = threadIdx.x; at < per_group; at += THREADS) {
        const int channel = group * per_group + at;
        const float scale = weight ? wide(weight[channel]) * deviation : deviation;
        scales[first + at] = scale;
        shifts[first + at] = (bias ? wide(bias[channel]) : 0.0f) - mean * scale;
    }
}

__device__ inline float acted(float number, int is_silu) { return is_silu ? number / (1.0f + expf(-number)) : number; }

// `made` of `given` by its channels' scales and shifts, and SiLU of that where it is asked for. Of planes, [planes,
// size], blockIdx.x is the plane; of channels that lie beside one another, [rows, size, channels], blockIdx.y the row.
extern "C" __global__ void scaled_planes(
    const Element* given, const float* scales, const float* shifts, Element* made, int size, int is_silu, int is_aligned) {
    const int plane = blockIdx.x;
    const float scale = scales[plane], shift = shifts[plane];
    const Element* own = given + (long long)plane * size;
    Element* out = made + (long long)plane * size;
    if (is_aligned) {
        for (int at = (blockIdx.y * THREADS + threadIdx.x) * VECTOR; at < size; at += gridDim.y * THREADS * VECTOR) {
            const Vector held = *reinterpret_cast<const Vector*>(own + at);
            Vector left;
            #pragma unroll
            for (int i = 0; i < VECTOR; i++) left.of[i] = narrow(acted(fmaf(wide(held.of[i]), scale, shift), is_silu));
            *reinterpret_cast<Vector*>(out + at) = left;
        }
    } else {
        for (int at = blockIdx.y * THREADS + threadIdx.x; at < size; at += gridDim.y * THREADS)
            out[at] = narrow(acted(fmaf(wide(own[at]), scale, shift), is_silu));
    }
}

extern "C" __global__ void scaled_channels(
    const Element* given, const float* scales, const float* shifts, Element* made, int size, int channels, int is_silu, int is_aligned) {
    const long long row = (long long)blockIdx.y * size * channels;
    const float* scale = scales + (long long)blockIdx.y * channels;
    const float* shift = shifts + (long long)blockIdx.y * channels;
    const long long all = (long long)size * channels;
    if (is_aligned) {
        for (long long at = ((long long)blockIdx.x * THREADS + threadIdx.x) * VECTOR; at < all; at += (long long)gridDim.x * THREADS * VECTOR) {
            const int channel = at % channels;
            const Vector held = *reinterpret_cast<const Vector*>(given + row + at);
            Vector left;
            #pragma unroll
            for (int i = 0; i < VECTOR; i++)
                left.of[i] = narrow(acted(fmaf(wide(held.of[i]), scale[channel + i], shift[channel + i]), is_silu));
            *reinterpret_cast<Vector*>(made + row + at) = left;
        }
    } else {
        for (long long at = (long long)blockIdx.x * THREADS + threadIdx.x; at < all; at += (long long)gridDim.x * THREADS) {
            const int channel = at % channels;
            made[row + at] = narrow(acted(fmaf(wide(given[row + at]), scale[channel], shift[channel]), is_silu));
        }
    }
}

// Of [rows, 2 * width] the first half times the GELU of the second, [rows, width] (Shazeer 2020, "GLU Variants Improve
// Transformer"; the GELU is the one by the error function).
__device__ inline float gated(float number, float gate) { return number * (0.5f * gate * (1.0f + erff(gate * 0.70710678118654752f))); }

extern "C" __global__ void gated_units(const Element* given, Element* made, long long all, int width, int is_aligned) {
    if (is_aligned) {
        const long long at = ((long long)blockIdx.x * THREADS + threadIdx.x) * VECTOR;
        if (at >= all) return;
        const Element* own = given + at + at / width * width;
        const Vector numbers = *reinterpret_cast<const Vector*>(own), gates = *reinterpret_cast<const Vector*>(own + width);
        Vector left;
        #pragma unroll
        for (int i = 0; i < VECTOR; i++) left.of[i] = narrow(gated(wide(numbers.of[i]), wide(gates.of[i])));
        *reinterpret_cast<Vector*>(made + at) = left;
    } else {
        const long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (at >= all) return;
        const Element* own = given + at + at / width * width;
        made[at] = narrow(gated(wide(own[0]), wide(own[width])));
    }
}
