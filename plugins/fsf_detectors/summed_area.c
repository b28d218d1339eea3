/* Resize boxes of frames by area, from summed-area tables; see summed_area.py. */

/* Write crops (count, tall, wide, 3) of frames with summed-area tables (frames, height, width, 3), which may have
 * overflowed. A box is left, top, right, bottom in pixel corners; owners are the frames' indices. */
void crop(const unsigned *sums, const long *boxes, const long *owners, float *crops, long count, long height,
          long width, long tall, long wide) {
#pragma omp parallel for schedule(static)
    for (long place = 0; place < count * tall; place++) {
        const long *box = boxes + 4 * (place / tall), row = place % tall;
        const long across = box[2] - box[0], down = box[3] - box[1];
        const long y[2] = {box[1] + row * down / tall, box[1] + ((row + 1) * down + tall - 1) / tall};
        const unsigned *frame = sums + 3 * owners[place / tall] * height * width;
        const unsigned *above = frame + 3 * y[0] * width, *below = frame + 3 * y[1] * width;
        float *to = crops + 3 * place * wide;
        long left = box[0], over = 0; /* a part starts at left + over / wide; incremental, without divisions */
        for (long column = 0; column < wide; column++, to += 3) {
            const long first = 3 * left;
            left += across / wide;
            over += across % wide;
            if (over >= wide) {
                over -= wide;
                left++;
            }
            const long last = 3 * (left + (over > 0));
            const float area = (y[1] - y[0]) * ((last - first) / 3);
            for (long c = 0; c < 3; c++)
                to[c] = (int)(below[last + c] - below[first + c] - above[last + c] + above[first + c]) / area;
        }
    }
}
