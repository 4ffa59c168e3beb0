// host_replay.cpp: launches one kernel as a file says and prints what its arrays hold then. Every array is a piece of
// memory of just its size, so that AddressSanitizer sees an access beside it; tests/test_sanitizers.py writes the file.
//
//   grid x y, block x y, number of arguments, then each: kind, bytes, offset from 16-byte alignment, and the bytes
//   kind 0: a number; 1: an array; 2: the array that is the argument of the number in `bytes`; 3: a null pointer
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" void host_enter(const unsigned* place, void** arguments);
extern "C" int host_launch(void (*kernel)(const unsigned*, void**), void** arguments, unsigned, unsigned, unsigned, unsigned);

static std::int64_t number(std::FILE* file) {
    std::int64_t value;
    if (std::fread(&value, 8, 1, file) != 1) std::exit(3);
    return value;
}

int main(int, char** names) {
    std::FILE* file = std::fopen(names[1], "rb");
    if (!file) return 3;
    unsigned shape[4];
    for (unsigned& n : shape) n = unsigned(number(file));
    const std::int64_t count = number(file);
    std::vector<char*> memory(count), held(count), values(count);
    std::vector<std::int64_t> sizes(count);
    std::vector<void*> arguments(count);
    for (std::int64_t k = 0; k < count; ++k) {
        const std::int64_t kind = number(file), bytes = number(file), offset = number(file);
        if (kind < 2) {
            sizes[k] = kind ? bytes : 0;
            memory[k] = static_cast<char*>(std::malloc(offset + bytes));
            values[k] = memory[k] + offset;
            if (bytes && std::fread(values[k], bytes, 1, file) != 1) return 3;
        } else if (kind == 2) {
            values[k] = values[bytes];
        }
        arguments[k] = kind == 0 ? static_cast<void*>(values[k]) : static_cast<void*>(&values[k]);
    }
    std::fclose(file);
    if (host_launch(host_enter, arguments.data(), shape[0], shape[1], shape[2], shape[3])) return 4;
    for (std::int64_t k = 0; k < count; ++k)
        if (sizes[k]) std::fwrite(values[k], sizes[k], 1, stdout);
    std::fflush(stdout);
    for (char* piece : memory) std::free(piece);
    std::_Exit(0);  // the threads of the machine wait for the next launch
}
