/* Resize boxes of frames by area, from summed-area tables; see summed_area.py. */

static const float GREY = 127.5f; /* as in summed_area.py */

static long within(long corner, long last) {
    return corner < 0 ? 0 : corner > last ? last : corner;
}

/* Write crops (count, tall, wide, 3) of frames with summed-area tables (frames, height, width, 3), which may have
 * overflowed. A box is left, top, right, bottom in pixel corners; owners are the frames' indices. Pixels outside of
 * the frame are GREY. */
void crop(const unsigned *sums, const long *boxes, const long *owners, float *crops, long count, long height,
          long width, long tall, long wide) {
#pragma omp parallel for schedule(static)
    for (long place = 0; place < count * tall; place++) {
        const long *box = boxes + 4 * (place / tall), row = place % tall;
        const long across = box[2] - box[0], down = box[3] - box[1];
        const long y[2] = {box[1] + row * down / tall, box[1] + ((row + 1) * down + tall - 1) / tall};
        const unsigned *frame = sums + 3 * owners[place / tall] * height * width;
        const long high = within(y[0], height - 1), low = within(y[1], height - 1);
        const unsigned *above = frame + 3 * high * width, *below = frame + 3 * low * width;
        float *to = crops + 3 * place * wide;
        long left = box[0], over = 0; /* a part starts at left + over / wide; incremental, without divisions */
        for (long column = 0; column < wide; column++, to += 3) {
            const long start = left;
            left += across / wide;
            over += across % wide;
            if (over >= wide) {
                over -= wide;
                left++;
            }
            const long end = left + (over > 0);
            const long first = within(start, width - 1), last = within(end, width - 1);
            const long area = (y[1] - y[0]) * (end - start);
            const float outside = (area - (low - high) * (last - first)) * GREY;
            for (long c = 0; c < 3; c++) {
                const unsigned sum = below[3 * last + c] - below[3 * first + c] - above[3 * last + c] + above[3 * first + c];
                to[c] = ((int)sum + outside) / area;
            }
        }
    }
}
