//! Renders views by the kernel of `views.cu`, emulated: `views INPUT OUTPUT`.
//!
//! INPUT: six words (width, height, size, images, views, words of the axes), the images, the words of the views, the axes,
//! 768 normalized values. OUTPUT: the views. A test of the crate that computes the same views on the host compares.
#include "cuda.hpp"

#include "../../kernels/views.cu"

template <class T> static std::vector<T> take(std::FILE* file, size_t count) {
    std::vector<T> all(count);
    if (std::fread(all.data(), sizeof(T), count, file) != count) {
        std::fprintf(stderr, "the input is too short\n");
        std::exit(2);
    }
    return all;
}

int main(int argc, char** argv) {
    std::FILE* in = argc == 3 ? std::fopen(argv[1], "rb") : nullptr;
    std::FILE* to = argc == 3 ? std::fopen(argv[2], "wb") : nullptr;
    if (!in || !to) return 2;
    const auto head = take<u32>(in, 6);
    const u32 width = head[0], height = head[1], size = head[2], count = head[4];
    const auto images = take<u8>(in, (size_t)head[3] * width * height * 3);
    const auto table = take<View>(in, count);
    const auto axes = take<int>(in, head[5]);
    const auto normal = take<float>(in, 768);
    std::vector<float> out((size_t)count * 3 * size * size, NAN);
    const u32 longest = width > height ? (width > size ? width : size) : (height > size ? height : size);
    const auto kernel = longest <= 32 ? views_32 : longest <= 64 ? views_64 : views_96;
    emulated::launch(Dim{count, 1, 1}, Dim{256, 1, 1}, [&] {
        kernel(images.data(), table.data(), axes.data(), normal.data(), out.data(), width, height, size);
    });
    return std::fwrite(out.data(), sizeof(float), out.size(), to) == out.size() && std::fclose(to) == 0 ? 0 : 2;
}
