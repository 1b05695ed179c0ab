package qr

func (c *Code) set(x, y int, dark bool) {
	c.dark[y*c.Size+x] = dark
	c.fixed[y*c.Size+x] = true
}

// drawPatterns draws what does not depend on the text: timing, finders, alignment, version.
func (c *Code) drawPatterns() {
	for i := range c.Size {
		c.set(6, i, i%2 == 0)
		c.set(i, 6, i%2 == 0)
	}
	for _, at := range [][2]int{{3, 3}, {c.Size - 4, 3}, {3, c.Size - 4}} {
		for dy := -4; dy <= 4; dy++ {
			for dx := -4; dx <= 4; dx++ {
				x, y, ring := at[0]+dx, at[1]+dy, max(abs(dx), abs(dy))
				if x >= 0 && y >= 0 && x < c.Size && y < c.Size {
					c.set(x, y, ring != 2 && ring != 4)
				}
			}
		}
	}
	centres := alignment(c.Version)
	last := len(centres) - 1
	for i, y := range centres {
		for j, x := range centres {
			if i == 0 && j == 0 || i == 0 && j == last || i == last && j == 0 {
				continue // a finder is there
			}
			for dy := -2; dy <= 2; dy++ {
				for dx := -2; dx <= 2; dx++ {
					c.set(x+dx, y+dy, max(abs(dx), abs(dy)) != 1)
				}
			}
		}
	}
	c.drawFormat(Low, 0) // takes its place
	if c.Version >= 7 {
		bits := c.Version<<12 | checkBits(c.Version, 12, 0x1f25)
		for i := range 18 {
			a, b := c.Size-11+i%3, i/3
			c.set(a, b, bits>>i&1 != 0)
			c.set(b, a, bits>>i&1 != 0)
		}
	}
}

// alignment returns the coordinates of the centres of the alignment patterns.
func alignment(version int) []int {
	if version == 1 {
		return nil
	}
	n := version/7 + 2
	step := (version*8 + n*3 + 5) / (n*4 - 4) * 2
	out := make([]int, n)
	out[0] = 6
	for i, at := n-1, 10+4*version; i > 0; i, at = i-1, at-step {
		out[i] = at
	}
	return out
}

// checkBits returns the BCH remainder of a value: 10 or 12 bits by a generator polynomial.
func checkBits(value, width, polynomial int) int {
	r := value
	for range width {
		r = r<<1 ^ r>>(width-1)*polynomial
	}
	return r
}

func (c *Code) drawFormat(level Level, mask int) {
	value := formatBits[level]<<3 | mask
	bits := (value<<10 | checkBits(value, 10, 0x537)) ^ 0x5412
	bit := func(i int) bool { return bits>>i&1 != 0 }
	for i := range 6 {
		c.set(8, i, bit(i))
	}
	c.set(8, 7, bit(6))
	c.set(8, 8, bit(7))
	c.set(7, 8, bit(8))
	for i := 9; i < 15; i++ {
		c.set(14-i, 8, bit(i))
	}
	for i := range 8 {
		c.set(c.Size-1-i, 8, bit(i))
	}
	for i := 8; i < 15; i++ {
		c.set(8, c.Size-15+i, bit(i))
	}
	c.set(8, c.Size-8, true)
}

// drawData lays the codewords along the zigzag from the lower right corner.
func (c *Code) drawData(data []byte) {
	i := 0
	for right := c.Size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5 // the column of the timing pattern
		}
		for step := range c.Size {
			for j := range 2 {
				x, y := right-j, step
				if (right+1)&2 == 0 {
					y = c.Size - 1 - step
				}
				if !c.fixed[y*c.Size+x] && i < 8*len(data) {
					c.dark[y*c.Size+x] = data[i/8]>>(7-i%8)&1 != 0
					i++
				}
			}
		}
	}
}

func (c *Code) applyMask(mask int) {
	for y := range c.Size {
		for x := range c.Size {
			var flip bool
			switch mask {
			case 0:
				flip = (x+y)%2 == 0
			case 1:
				flip = y%2 == 0
			case 2:
				flip = x%3 == 0
			case 3:
				flip = (x+y)%3 == 0
			case 4:
				flip = (x/3+y/2)%2 == 0
			case 5:
				flip = x*y%2+x*y%3 == 0
			case 6:
				flip = (x*y%2+x*y%3)%2 == 0
			case 7:
				flip = ((x+y)%2+x*y%3)%2 == 0
			}
			if at := y*c.Size + x; flip && !c.fixed[at] {
				c.dark[at] = !c.dark[at]
			}
		}
	}
}

// penalty says how hard a code is to read: long runs, blocks, look-alikes of finders, imbalance.
func (c *Code) penalty() int {
	sum, dark := 0, 0
	for a := range c.Size {
		sum += c.linePenalty(func(b int) bool { return c.Dark(b, a) })
		sum += c.linePenalty(func(b int) bool { return c.Dark(a, b) })
	}
	for y := range c.Size {
		for x := range c.Size {
			d := c.Dark(x, y)
			if d {
				dark++
			}
			if x > 0 && y > 0 && d == c.Dark(x-1, y) && d == c.Dark(x, y-1) && d == c.Dark(x-1, y-1) {
				sum += 3
			}
		}
	}
	return sum + 10*(abs(20*dark-10*c.Size*c.Size)/(c.Size*c.Size))
}

func (c *Code) linePenalty(dark func(int) bool) int {
	sum, run := 0, 0
	history := 0 // the last eleven modules as bits
	for i := range c.Size {
		if i > 0 && dark(i) == dark(i-1) {
			run++
		} else {
			run = 1
		}
		if run == 5 {
			sum += 3
		} else if run > 5 {
			sum++
		}
		history = history << 1 & 0x7ff
		if dark(i) {
			history |= 1
		}
		if i >= 10 && (history == 0b10111010000 || history == 0b00001011101) {
			sum += 40
		}
	}
	return sum
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
