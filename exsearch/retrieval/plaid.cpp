// PLAID's ranking of passages for ColBERT queries (Santhanam et al., CIKM 2022), on CPU.
//
// Four stages per query, the first three of which only narrow down:
//   1. score every centroid against every query vector; the passages in the lists of the
//      `cells` best centroids of each query vector are the candidates;
//   2. approximate a candidate by its tokens' centroids, reading only centroids that some
//      query vector likes at least `threshold`; keep the best `docs`;
//   3. the same with all its centroids; keep a quarter of those;
//   4. rebuild the vectors from centroid and residual, and score exactly.
//
// The stages and cut-offs are those of colbert-ai's CPU searcher, so both rank alike. What
// differs is the work: a query is one call and never leaves it, several queries run on
// several threads, passages are marked in a bit set instead of a hash table, and the dot
// products of stages 1 and 4 are held in registers. A query's numbers never depend on what
// else runs: threads divide passages, not sums.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int LANES = 16;           // floats in one accumulator
constexpr int COLUMNS = 2 * LANES;  // query vectors multiplied at once
constexpr int ROWS = 4;             // rows multiplied at once
typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

#if defined(__x86_64__)
#define CLONED __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONED
#endif

struct Index {
    int64_t centroids, passages;
    int32_t dim, nbits;
    const float* centroid;         // [centroids, dim]
    const int64_t* list_offsets;   // [centroids + 1]
    const int32_t* lists;          // passages by centroid
    const int64_t* offsets;        // [passages + 1], first vector of each passage
    const int32_t* codes;          // [vectors]
    const uint8_t* residuals;      // [vectors, dim * nbits / 8]
    const float* table;            // [256, 8 / nbits], what a residual byte stands for
};

struct Settings {
    int32_t cells, docs, k, threads;
    float threshold;
};

struct Ranked {
    float score;
    int32_t passage;
    // Among equals the later passage first, as colbert-ai's heap has it.
    bool operator<(const Ranked& o) const {
        return score != o.score ? score > o.score : passage > o.passage;
    }
};

// out[r, q] = rows[r] . query[q], for query vectors laid out [dim, width], width a multiple
// of COLUMNS. Eight accumulators keep the multipliers busy; per output the sum runs over dim
// in order, however rows are grouped.
CLONED void products(const float* rows, int64_t count, int dim, const float* query, int width,
                     float* out) {
    for (int64_t r = 0; r < count; r += ROWS) {
        const int here = static_cast<int>(std::min<int64_t>(ROWS, count - r));
        const float* row[ROWS];
        for (int i = 0; i < ROWS; i++) row[i] = rows + (r + std::min(i, here - 1)) * dim;
        for (int q = 0; q < width; q += COLUMNS) {
            vec a0 = {}, b0 = {}, c0 = {}, d0 = {}, a1 = {}, b1 = {}, c1 = {}, d1 = {};
            const float* column = query + q;
            for (int x = 0; x < dim; x++, column += width) {
                const vec y0 = *reinterpret_cast<const vec*>(column);
                const vec y1 = *reinterpret_cast<const vec*>(column + LANES);
                const float a = row[0][x], b = row[1][x], c = row[2][x], d = row[3][x];
                a0 += a * y0, a1 += a * y1;
                b0 += b * y0, b1 += b * y1;
                c0 += c * y0, c1 += c * y1;
                d0 += d * y0, d1 += d * y1;
            }
            const vec sums[ROWS][2] = {{a0, a1}, {b0, b1}, {c0, c1}, {d0, d1}};
            for (int i = 0; i < here; i++)
                std::memcpy(out + (r + i) * width + q, sums[i], sizeof(sums[i]));
        }
    }
}

// best[q] = the largest of best[q] and of table[row, q] over the rows named by `codes`
// (null: rows 0, 1, ...), passing over those that are not `liked` (null: none).
CLONED void peaks(float* best, const float* table, int width, const int32_t* codes,
                  int64_t count, const uint8_t* liked) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = codes ? codes[i] : i;
        if (liked && !liked[row]) continue;
        for (int q = 0; q < width; q += LANES) {
            vec b = *reinterpret_cast<const vec*>(best + q);
            const vec s = *reinterpret_cast<const vec*>(table + row * width + q);
            b = s > b ? s : b;
            std::memcpy(best + q, &b, sizeof(vec));
        }
    }
}

// Residuals as floats: each byte stands for PER_BYTE of them, side by side in the table.
template <int PER_BYTE>
void unpack(const uint8_t* packed, int64_t bytes, const float* table, float* out) {
    for (int64_t b = 0; b < bytes; b++)
        std::memcpy(out + b * PER_BYTE, table + packed[b] * PER_BYTE, PER_BYTE * sizeof(float));
}

void unpack(const Index& index, int64_t first, int64_t last, float* out) {
    const int64_t bytes = static_cast<int64_t>(index.dim) * index.nbits / 8;
    const uint8_t* packed = index.residuals + first * bytes;
    const int64_t count = (last - first) * bytes;
    if (index.nbits == 1) return unpack<8>(packed, count, index.table, out);
    if (index.nbits == 2) return unpack<4>(packed, count, index.table, out);
    return unpack<2>(packed, count, index.table, out);
}

// Residuals become vectors: each plus its centroid, at unit length.
CLONED void complete(const Index& index, int64_t first, int64_t last, float* rows) {
    const int dim = index.dim;
    for (int64_t v = first; v < last; v++) {
        float* row = rows + (v - first) * dim;
        const float* centroid = index.centroid + static_cast<int64_t>(index.codes[v]) * dim;
        vec squares = {};
        for (int x = 0; x < dim; x += LANES) {
            vec sum = *reinterpret_cast<const vec*>(row + x);
            sum += *reinterpret_cast<const vec*>(centroid + x);
            squares += sum * sum;
            std::memcpy(row + x, &sum, sizeof(vec));
        }
        float norm = 0.0f;
        for (int l = 0; l < LANES; l++) norm += squares[l];
        const float scale = 1.0f / std::max(std::sqrt(norm), 1e-12f);
        for (int x = 0; x < dim; x++) row[x] *= scale;
    }
}

// Call work(begin, end) on slices of [0, count), on up to `threads` threads.
template <typename Work>
void divided(int64_t count, int threads, Work work) {
    if (threads <= 1 || count < 64) return work(int64_t{0}, count);
    std::vector<std::thread> running;
    const int64_t step = (count + threads - 1) / threads;
    for (int64_t begin = step; begin < count; begin += step)
        running.emplace_back([=, &work] { work(begin, std::min(count, begin + step)); });
    work(int64_t{0}, std::min(count, step));
    for (auto& thread : running) thread.join();
}

class Query {
  public:
    Query(const Index& index, const Settings& settings, const float* vectors, int count,
          int threads)
        : index_(index), settings_(settings), count_(count),
          width_((count + COLUMNS - 1) / COLUMNS * COLUMNS), threads_(threads),
          query_(static_cast<size_t>(index.dim) * width_, 0.0f) {
        for (int q = 0; q < count; q++)
            for (int x = 0; x < index.dim; x++)
                query_[static_cast<size_t>(x) * width_ + q] = vectors[q * index.dim + x];
    }

    int run(int32_t* passages, float* scores) {
        score_centroids();
        std::vector<Ranked> found = candidates();
        approximate(found, true);
        keep(found, settings_.docs);
        approximate(found, false);
        keep(found, settings_.docs / 4);
        exact(found);
        std::sort(found.begin(), found.end(), [](const Ranked& a, const Ranked& b) {
            return a.score != b.score ? a.score > b.score : a.passage < b.passage;
        });
        const int best = std::min<int>(settings_.k, static_cast<int>(found.size()));
        for (int i = 0; i < best; i++) {
            passages[i] = found[i].passage;
            scores[i] = found[i].score;
        }
        return best;
    }

  private:
    const float* of_centroid(int64_t c) const { return centroid_scores_.data() + c * width_; }

    void score_centroids() {
        const int64_t n = index_.centroids;
        centroid_scores_.resize(static_cast<size_t>(n) * width_);
        liked_.resize(n);
        divided(n, threads_, [&](int64_t begin, int64_t end) {
            products(index_.centroid + begin * index_.dim, end - begin, index_.dim,
                     query_.data(), width_, centroid_scores_.data() + begin * width_);
            for (int64_t c = begin; c < end; c++) {
                const float* s = of_centroid(c);
                liked_[c] = *std::max_element(s, s + count_) >= settings_.threshold;
            }
        });
    }

    // Centroids that are among the best `cells` of some query vector, ascending.
    std::vector<int32_t> chosen_cells() const {
        const int cells = static_cast<int>(
            std::min<int64_t>(settings_.cells, index_.centroids));
        std::vector<float> least(width_, -1e30f);
        std::vector<std::vector<std::pair<float, int32_t>>> best(count_);
        for (int64_t c = 0; c < index_.centroids; c++) {
            const float* s = of_centroid(c);
            for (int q = 0; q < count_; q++) {
                if (s[q] <= least[q]) continue;
                auto& top = best[q];
                if (static_cast<int>(top.size()) == cells) top.pop_back();
                const auto place = std::find_if(
                    top.begin(), top.end(), [&](const auto& o) { return o.first < s[q]; });
                top.insert(place, {s[q], static_cast<int32_t>(c)});
                if (static_cast<int>(top.size()) == cells) least[q] = top.back().first;
            }
        }
        std::vector<int32_t> chosen;
        for (const auto& top : best)
            for (const auto& entry : top) chosen.push_back(entry.second);
        std::sort(chosen.begin(), chosen.end());
        chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
        return chosen;
    }

    std::vector<Ranked> candidates() const {
        std::vector<uint64_t> seen((index_.passages + 63) / 64, 0);
        std::vector<Ranked> found;
        for (const int32_t cell : chosen_cells()) {
            for (int64_t i = index_.list_offsets[cell]; i < index_.list_offsets[cell + 1]; i++) {
                const int32_t passage = index_.lists[i];
                const uint64_t bit = uint64_t{1} << (passage & 63);
                if (seen[passage >> 6] & bit) continue;
                seen[passage >> 6] |= bit;
                found.push_back({0.0f, passage});
            }
        }
        return found;
    }

    float total(const float* best) const {
        float sum = 0.0f;
        for (int q = 0; q < count_; q++) sum += best[q];
        return sum;
    }

    // Score passages by their tokens' centroids alone: `pruned` reads only liked ones.
    void approximate(std::vector<Ranked>& found, bool pruned) const {
        divided(static_cast<int64_t>(found.size()), threads_, [&](int64_t begin, int64_t end) {
            std::vector<float> best(width_);
            for (int64_t i = begin; i < end; i++) {
                std::fill(best.begin(), best.end(), -9999.0f);
                const int32_t passage = found[i].passage;
                const int64_t first = index_.offsets[passage];
                peaks(best.data(), of_centroid(0), width_, index_.codes + first,
                      index_.offsets[passage + 1] - first, pruned ? liked_.data() : nullptr);
                found[i].score = total(best.data());
            }
        });
    }

    static void keep(std::vector<Ranked>& found, int most) {
        if (static_cast<int>(found.size()) <= most) return;
        std::nth_element(found.begin(), found.begin() + most, found.end());
        found.resize(most);
    }

    void exact(std::vector<Ranked>& found) const {
        divided(static_cast<int64_t>(found.size()), threads_, [&](int64_t begin, int64_t end) {
            std::vector<float> rows, scores, best(width_);
            for (int64_t i = begin; i < end; i++) {
                const int32_t passage = found[i].passage;
                const int64_t first = index_.offsets[passage];
                const int64_t length = index_.offsets[passage + 1] - first;
                rows.resize(static_cast<size_t>(length) * index_.dim);
                unpack(index_, first, first + length, rows.data());
                complete(index_, first, first + length, rows.data());
                scores.resize(static_cast<size_t>(length) * width_);
                products(rows.data(), length, index_.dim, query_.data(), width_, scores.data());
                std::fill(best.begin(), best.end(), 0.0f);
                peaks(best.data(), scores.data(), width_, nullptr, length, nullptr);
                found[i].score = total(best.data());
            }
        });
    }

    const Index& index_;
    const Settings& settings_;
    const int count_, width_, threads_;
    std::vector<float> query_;
    std::vector<float> centroid_scores_;
    std::vector<uint8_t> liked_;
};

}  // namespace

// Rank passages for `queries` queries of `count` vectors each, [queries, count, dim]. Writes up
// to k passages and scores per query, [queries, k], and how many into `found`, [queries].
extern "C" void plaid_search(const Index* index, const Settings* settings, const float* vectors,
                             int32_t queries, int32_t count, int32_t* passages, float* scores,
                             int32_t* found) {
    const int outer = std::max(1, std::min(settings->threads, queries));
    const int inner = std::max(1, settings->threads / outer);
    std::atomic<int> next{0};
    auto work = [&] {
        for (int q = next++; q < queries; q = next++) {
            Query query(*index, *settings,
                        vectors + static_cast<int64_t>(q) * count * index->dim, count, inner);
            const int64_t place = static_cast<int64_t>(q) * settings->k;
            found[q] = query.run(passages + place, scores + place);
        }
    };
    std::vector<std::thread> running;
    for (int t = 1; t < outer; t++) running.emplace_back(work);
    work();
    for (auto& thread : running) thread.join();
}
